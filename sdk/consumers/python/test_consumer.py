"""What a consumer must do, without a broker: `python -m unittest` in this folder."""

import json
import os
import pathlib
import random
import sqlite3
import tempfile
import unittest

import feed
import protobuf
from archive import Archive, joined, missing

GOLDEN = feed.FORMAT / "testdata" / "v1"
GENERATION = "5eed000000000001"


def golden(name):
    return (GOLDEN / f"{name}.bin").read_bytes()


def read(name, payload):
    by_name = {"state": feed.state, "ack": feed.ack, "cfg": feed.config}
    return by_name.get(name.split("_")[0], feed.message)(payload)


def renumbered(name, first, last=None, oldest=1):
    """A golden payload under other record numbers: of a field that comes twice the last one holds."""
    numbers = {"seq_first": first, "seq_last": last or first, "oldest_seq_held": oldest}
    body = feed.inflated(golden(name), feed.MESSAGE_BYTES_MAX) + protobuf.encode(feed.PROTO, "Message", numbers)
    return bytes([feed.VERSION, 0, 0, 0]) + body


class Golden(unittest.TestCase):
    def test_each_golden_payload_says_what_its_twin_says(self):
        names = sorted(path.stem for path in GOLDEN.glob("*.bin"))
        self.assertGreaterEqual(len(names), 13)
        for name in names:
            twin = json.loads((GOLDEN / f"{name}.json").read_text())
            self.assertEqual(read(name, golden(name)), twin, name)

    def test_an_acknowledgement_is_read_as_it_was_written(self):
        twin = json.loads((GOLDEN / "ack_ranges.json").read_text())
        generations = [(each["generation"], each["through_seq"], each["ranges"]) for each in twin["generations"]]
        payload = feed.ack_payload(twin["archive"], twin["start"], generations, twin["births_wanted"])
        self.assertEqual(feed.ack(payload), twin)

    def test_damaged_payloads_are_unreadable_and_nothing_worse(self):
        seed = int(os.environ.get("TILLWATCH_SEED", random.randrange(1 << 32)))
        print(f"TILLWATCH_SEED={seed}")
        dice, names = random.Random(seed), [path.stem for path in GOLDEN.glob("*.bin")]
        unreadable = 0
        for _ in range(3_000):
            name = dice.choice(names)
            payload = bytearray(golden(name))
            for _ in range(dice.randint(1, 4)):
                payload[dice.randrange(len(payload))] = dice.randrange(256)
            try:
                read(name, bytes(payload[: dice.randint(0, len(payload))]))
            except feed.Unreadable:
                unreadable += 1
        self.assertGreater(unreadable, 1_000)

    def test_a_dictionary_is_found_by_the_id_in_the_header(self):
        data = feed.zstandard.ZstdCompressionDict(b"tillwatch feed " * 20)
        with tempfile.TemporaryDirectory() as folder:
            place, feed.FORMAT = feed.FORMAT, pathlib.Path(folder)
            self.addCleanup(setattr, feed, "FORMAT", place)
            body = feed.zstandard.ZstdCompressor(dict_data=data).compress(b"\x08\x58")
            payload = bytes([1, 1, 0x07, 0x02]) + body
            with self.assertRaises(feed.Unreadable):
                feed.config(payload)
            (feed.FORMAT / "dictionaries").mkdir()
            (feed.FORMAT / "dictionaries" / "519.zdict").write_bytes(data.as_bytes())
            self.addCleanup(feed.DECOMPRESSORS.pop, 519, None)
            self.assertEqual(feed.config(payload), {"spread_window_s": 88})


class Archiving(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(pathlib.Path(folder.name) / "feed.sqlite")
        self.archive = Archive(self.path, "lake")
        self.now_s = 0.0

    def take(self, *payloads, leaf="sum"):
        for payload in payloads:
            self.archive.take("a", "store-1", leaf, payload)
        self.archive.commit()

    def ask(self, sql):
        with sqlite3.connect(self.path) as reader:
            return reader.execute(sql).fetchall()

    def ack(self):
        """The one that is due, a second later."""
        self.now_s += 1.0
        ((topic, payload),) = self.archive.acks(self.now_s)
        self.assertEqual(topic, "tw1/a/store-1/ack/lake")
        return feed.ack(payload)

    def generations(self):
        return {each["generation"]: (each["through_seq"], each["ranges"]) for each in self.ack()["generations"]}

    def test_a_record_counts_once_however_often_and_in_whatever_company_it_comes(self):
        records = len(feed.message(golden("sum_joined"))["block"]["records"])
        self.take(renumbered("birth", 1), renumbered("sum_joined", 2, 1 + records))
        whole = self.ask("SELECT sum(count), sum(sum) FROM figures")
        self.assertGreater(whole[0][0], 0)
        self.take(renumbered("sum_joined", 2, 1 + records), renumbered("birth", 1))
        self.assertEqual(self.ask("SELECT sum(count), sum(sum) FROM figures"), whole)
        # Moved by one record: all but the last are known, so only its interval adds.
        last = feed.message(golden("sum_joined"))["block"]["intervals"][-1]
        self.take(renumbered("sum_joined", 3, 2 + records))
        added = sum(row["count"] for row in last["rows"])
        self.assertEqual(self.ask("SELECT sum(count) FROM figures"), [(whole[0][0] + added,)])
        self.assertEqual(self.generations(), {GENERATION: (2 + records, [])})

    def test_nothing_is_acknowledged_that_a_kill_would_lose(self):
        self.take(renumbered("birth", 1))
        self.archive.take("a", "store-1", "sum", renumbered("sum_live", 2))
        self.archive.sql.close()  # a kill before the commit
        self.archive = Archive(self.path, "lake")
        self.take(renumbered("sum_live", 3))
        self.assertEqual(self.generations(), {GENERATION: (1, [[3, 3]])})

    def test_a_block_without_its_birth_is_kept_acknowledged_and_counted_when_the_birth_comes(self):
        self.take(renumbered("sum_live", 2))
        ack = self.ack()
        schema = feed.message(golden("sum_live"))["block"]["schema"]
        self.assertEqual(ack["births_wanted"], [schema])
        self.assertEqual(ack["generations"][0]["ranges"], [[2, 2]])
        self.assertEqual(self.ask("SELECT count(*) FROM figures"), [(0,)])
        self.take(renumbered("birth", 1), leaf="birth")
        self.assertGreater(self.ask("SELECT count(*) FROM figures")[0][0], 0)
        self.assertEqual(self.ack()["births_wanted"], [])

    def test_gaps_and_what_the_store_no_longer_holds_are_lost_and_acknowledged(self):
        self.take(renumbered("gap_quota", 1, 10), renumbered("birth", 21, oldest=15))
        self.assertEqual(self.generations(), {GENERATION: (14, [[21, 21]])})
        lost = self.ask("SELECT first, last, reason FROM lost ORDER BY first")
        self.assertEqual(lost, [(1, 10, "QuotaBytes"), (11, 14, "lost at this archive")])

    def test_what_cannot_be_read_is_kept_once_and_stops_nothing(self):
        self.take(b"\x02\x00\x00\x00future", b"\x02\x00\x00\x00future", renumbered("birth", 1))
        self.assertEqual(self.ask("SELECT reason, bytes FROM undecoded"), [("version 2, flags 0", b"\x02\x00\x00\x00future")])
        self.assertEqual(self.generations(), {GENERATION: (1, [])})

    def test_of_a_finding_the_largest_revision_holds(self):
        self.take(golden("evt_closed"), golden("evt_open"), leaf="evt")
        ((found,),) = self.ask("SELECT json FROM findings")
        self.assertEqual(json.loads(found), feed.message(golden("evt_closed"))["finding"])

    def test_a_store_is_acknowledged_once_a_second_and_told_when_messages_may_be_lost(self):
        self.take(renumbered("birth", 1))
        start = self.ack()["start"]
        self.take(renumbered("sum_live", 2))
        self.assertEqual(list(self.archive.acks(self.now_s + 0.9)), [])
        self.assertEqual(self.ack()["start"], start)
        self.archive.restarted()
        self.assertNotEqual(self.ack()["start"], start)

    def test_an_acknowledgement_holds_sixteen_ranges_and_a_generation_so_many_holes(self):
        self.take(*(renumbered("sum_live", seq) for seq in range(2, 4_000, 2)))
        ((through, ranges),) = self.generations().values()
        self.assertEqual((through, len(ranges)), (0, 16))
        self.assertEqual(len(json.loads(self.ask("SELECT ranges FROM settled")[0][0])), 1_024)


class Ranges(unittest.TestCase):
    def test_missing_and_joined_agree_with_sets(self):
        dice = random.Random(7)
        for _ in range(500):
            known = joined([[n, n + dice.randint(0, 3)] for n in dice.sample(range(1, 40), 6)])
            first = dice.randint(1, 40)
            last = first + dice.randint(0, 20)
            numbers = {n for a, b in known for n in range(a, b + 1)}
            gone = {n for a, b in missing(known, first, last) for n in range(a, b + 1)}
            self.assertEqual(gone, set(range(first, last + 1)) - numbers)
            both = {n for a, b in joined(known + missing(known, first, last)) for n in range(a, b + 1)}
            self.assertEqual(both, numbers | set(range(first, last + 1)))


if __name__ == "__main__":
    unittest.main()
