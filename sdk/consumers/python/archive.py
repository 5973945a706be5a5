"""A durable archive in one SQLite file: what came once, what was lost, and what may be acknowledged.

In: payloads as they came. Out: after each commit the acknowledgements of the stores that it concerns.
It counts each record (site, generation, seq) once, keeps what it cannot read, and acknowledges nothing uncommitted.
"""

import json
import secrets
import sqlite3

import feed

# The format's limits of one acknowledgement.
RANGES_MAX, GENERATIONS_MAX, BIRTHS_WANTED_MAX = 16, 16, 64
# Holes kept of one generation; a message that would need more is not taken, and comes again when they are filled.
HOLES_MAX = 1_024
ACK_INTERVAL_S = 1.0

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS births (site TEXT, schema TEXT, bytes BLOB, PRIMARY KEY (site, schema));
CREATE TABLE IF NOT EXISTS figures (      -- one series of one site in one interval; late values add
  site TEXT, start_ms INTEGER, length_ms INTEGER, metric TEXT, labels TEXT, unit TEXT, decimals INTEGER,
  count INTEGER, sum INTEGER, min INTEGER, max INTEGER,
  PRIMARY KEY (site, start_ms, length_ms, metric, labels));
CREATE TABLE IF NOT EXISTS findings (site TEXT, id TEXT, revision INTEGER, json TEXT, PRIMARY KEY (site, id));
CREATE TABLE IF NOT EXISTS waiting (      -- blocks whose birth has not come, with what of them is to be counted
  id INTEGER PRIMARY KEY, site TEXT, schema TEXT, fresh TEXT, bytes BLOB);
CREATE INDEX IF NOT EXISTS waiting_by_schema ON waiting (site, schema);
CREATE TABLE IF NOT EXISTS undecoded (site TEXT, leaf TEXT, reason TEXT, bytes BLOB, UNIQUE (site, leaf, bytes));
CREATE TABLE IF NOT EXISTS lost (site TEXT, generation TEXT, first INTEGER, last INTEGER, reason TEXT);
CREATE TABLE IF NOT EXISTS settled (      -- ranges of records that are received or accounted for
  site TEXT, generation TEXT, heard INTEGER, ranges TEXT, PRIMARY KEY (site, generation));
"""


class Archive:
    def __init__(self, path, name):
        self.name = name
        # Transactions are this class's own: all that came since the last commit is one.
        self.sql = sqlite3.connect(path, isolation_level=None)
        self.sql.executescript(TABLES)
        self.heard = self.sql.execute("SELECT coalesce(max(heard), 0) FROM settled").fetchone()[0]
        self.shards, self.due, self.acked_s = {}, set(), {}
        self.restarted()

    def restarted(self):
        """Messages may have been lost on the way: with another start number agents send again what is not acknowledged."""
        self.start = f"{secrets.randbits(64):016x}"
        self.due |= set(self.shards)

    def take(self, shard, site, leaf, payload):
        """One payload of `birth`, `sum` or `evt`. Nothing of it is durable before `commit`."""
        if not self.sql.in_transaction:
            self.sql.execute("BEGIN")
        self.shards[site] = shard
        try:
            message = feed.message(payload)
        except feed.Unreadable as error:
            # Its numbers are unknown, so it cannot be acknowledged: the store sends it again until somebody reads it.
            return self.keep_undecoded(site, leaf, str(error), payload)
        fresh = self.settle(site, message)
        if fresh is None:
            return
        self.due.add(site)
        if "birth" in message:
            self.take_birth(site, message["birth"]["schema"], payload)
        elif not fresh:
            return
        elif "gap" in message:
            self.lose(site, message["generation"], fresh, message["gap"]["reason"])
        elif "finding" in message:
            self.take_finding(site, message["finding"])
        else:
            self.take_block(site, leaf, message, fresh, payload)

    def commit(self):
        if self.sql.in_transaction:
            self.sql.execute("COMMIT")

    def acks(self, now_s):
        """(topic, payload) for each store that is due one; call it after `commit`, with a monotonic time."""
        for site in sorted(self.due):
            if now_s - self.acked_s.get(site, -ACK_INTERVAL_S) >= ACK_INTERVAL_S:
                self.due.discard(site)
                self.acked_s[site] = now_s
                yield f"tw1/{self.shards[site]}/{site}/ack/{self.name}", self.ack_payload(site)

    def ack_payload(self, site):
        rows = self.sql.execute(
            "SELECT generation, ranges FROM settled WHERE site = ? ORDER BY heard DESC LIMIT ?", (site, GENERATIONS_MAX)
        )
        generations = []
        for generation, ranges in rows:
            ranges = json.loads(ranges)
            through = ranges[0][1] if ranges and ranges[0][0] == 1 else 0
            beyond = [part for part in ranges if part[0] > through]
            generations.append((generation, through, beyond[:RANGES_MAX]))
        wanted = self.sql.execute(
            "SELECT DISTINCT schema FROM waiting WHERE site = ? LIMIT ?", (site, BIRTHS_WANTED_MAX)
        )
        return feed.ack_payload(self.name, self.start, generations, [schema for (schema,) in wanted])

    def settle(self, site, message):
        """What of the message is new. Records below `oldest_seq_held` that never came no longer exist: lost here."""
        generation, first, last = message["generation"], message["seq_first"], message["seq_last"]
        row = self.sql.execute(
            "SELECT ranges FROM settled WHERE site = ? AND generation = ?", (site, generation)
        ).fetchone()
        before = json.loads(row[0]) if row else []
        oldest = min(message["oldest_seq_held"], first)
        gone = missing(before, 1, oldest - 1)
        fresh = missing(before, first, last)
        after = joined(before + gone + fresh)
        if len(after) > HOLES_MAX:
            return None
        self.lose(site, generation, gone, "lost at this archive")
        self.heard += 1
        self.sql.execute(
            "INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?)", (site, generation, self.heard, json.dumps(after))
        )
        return fresh

    def lose(self, site, generation, ranges, reason):
        rows = [(site, generation, first, last, reason) for first, last in ranges]
        self.sql.executemany("INSERT INTO lost VALUES (?, ?, ?, ?, ?)", rows)

    def keep_undecoded(self, site, leaf, reason, payload):
        self.sql.execute("INSERT OR IGNORE INTO undecoded VALUES (?, ?, ?, ?)", (site, leaf, reason, payload))

    def take_birth(self, site, schema, payload):
        self.sql.execute("INSERT OR IGNORE INTO births VALUES (?, ?, ?)", (site, schema, payload))
        waiting = self.sql.execute(
            "SELECT id, fresh, bytes FROM waiting WHERE site = ? AND schema = ? ORDER BY id", (site, schema)
        )
        for row, fresh, bytes_ in waiting.fetchall():
            self.sql.execute("DELETE FROM waiting WHERE id = ?", (row,))
            self.take_block(site, "sum", feed.message(bytes_), json.loads(fresh), bytes_)

    def take_finding(self, site, finding):
        self.sql.execute(
            "INSERT INTO findings VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET revision = excluded.revision, "
            "json = excluded.json WHERE excluded.revision > revision",
            (site, finding["id"], finding["revision"], json.dumps(finding)),
        )

    def take_block(self, site, leaf, message, fresh, payload):
        block = message["block"]
        names = self.names(site, block["schema"])
        if names is None:
            self.sql.execute(
                "INSERT INTO waiting (site, schema, fresh, bytes) VALUES (?, ?, ?, ?)",
                (site, block["schema"], json.dumps(fresh), payload),
            )
            return
        if len(block["records"]) != message["seq_last"] - message["seq_first"] + 1:
            return self.keep_undecoded(site, leaf, "its records are not those of its message", payload)
        series = {row["series"] for interval in block["intervals"] for row in interval["rows"]}
        if not series <= names.keys():
            return self.keep_undecoded(site, leaf, "a series that its birth does not know", payload)
        figures = [
            (site, interval["start_ms"], interval["length_ms"], *names[row["series"]])
            + (row["count"], row["sum"], row["min"], row["max"])
            for interval in fresh_intervals(message, fresh)
            for row in interval["rows"]
            if row["count"]
        ]
        # A sum that leaves 64 bits would become a real number; it never does in a shop.
        self.sql.executemany(
            "INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "count = count + excluded.count, sum = sum + excluded.sum, "
            "min = min(min, excluded.min), max = max(max, excluded.max)",
            figures,
        )

    def names(self, site, schema):
        """Metric, labels, unit and decimals by series, or None without the birth."""
        row = self.sql.execute("SELECT bytes FROM births WHERE site = ? AND schema = ?", (site, schema)).fetchone()
        if row is None:
            return None
        birth = feed.message(row[0])["birth"]
        names = {}
        for series in birth["series"]:
            metric = birth["metrics"][series["metric"]]
            labels = json.dumps(dict(zip(metric["label_keys"], series["label_values"])), sort_keys=True)
            names[series["id"]] = (metric["name"], labels, metric["unit"], metric["decimals"])
        return names


def fresh_intervals(message, fresh):
    """Of a block that mixes known and new records only the intervals of the new ones."""
    intervals = iter(message["block"]["intervals"])
    for seq, count in enumerate(message["block"]["records"], message["seq_first"]):
        brought = [next(intervals) for _ in range(count)]
        if any(first <= seq <= last for first, last in fresh):
            yield from brought


def missing(ranges, first, last):
    """The parts of first..=last that are in none of the ascending ranges."""
    parts = []
    for known_first, known_last in ranges:
        if known_first > last:
            break
        if known_first > first:
            parts.append([first, known_first - 1])
        first = max(first, known_last + 1)
    return parts + ([[first, last]] if first <= last else [])


def joined(ranges):
    """Ascending, and as few as possible."""
    result = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1][1] = max(result[-1][1], last)
        else:
            result.append([first, last])
    return result
