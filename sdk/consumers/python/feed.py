"""FORMAT v1: from a payload to what it says, in the words of FORMAT.md.

In: the payload of `birth`, `sum`, `evt`, `state`, `ack` or `cfg`. Out: dicts as in sdk/feed/testdata/v1/*.json; and the
payload of an acknowledgement. It opens no file but feed.proto and the dictionaries beside it, and no socket.
"""

import pathlib
import struct
from decimal import Decimal, localcontext

import protobuf
import zstandard

VERSION = 1
ZSTD = 1
PAYLOAD_BYTES_MAX = 256 * 1024
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
CONTROL_BYTES_MAX = 64 * 1024
RECORDS_MAX, ROWS_MAX, BUCKETS_MAX = 1_024, 65_536, 320
TIME_MS_MAX, INTERVAL_MS_MAX = 1 << 53, 3_600_000

# Beside this file when it was copied alone, else where the repository has it.
HERE = pathlib.Path(__file__).resolve().parent
FORMAT = HERE if (HERE / "feed.proto").exists() else HERE.parent.parent / "feed"
PROTO = protobuf.schema((FORMAT / "feed.proto").read_text())

KINDS = {1: "gauge", 2: "counter", 3: "sum", 4: "distribution"}
GAP_REASONS = {1: "QuotaBytes", 2: "QuotaAge", 3: "Corrupt", 4: "Refused"}
SCORE_STATES = {1: "warming", 2: "ok", 3: "stale"}


class Unreadable(Exception):
    """This payload cannot be read; keep it as it is."""


def message(payload):
    """What came on `birth`, `sum` or `evt`."""
    body = of_payload("Message", payload, MESSAGE_BYTES_MAX)
    said = [kind for kind in ("birth", "block", "gap", "finding") if body[kind] is not None]
    if len(said) != 1:
        raise Unreadable(f"a message has one body, not {len(said)}")
    body["seq_last"] = body["seq_last"] or body["seq_first"]
    body["oldest_seq_held"] = body["oldest_seq_held"] or body["seq_first"]
    # Up to where SQLite can count; an honest store gets nowhere near.
    if not 0 < body["seq_first"] <= body["seq_last"] < 1 << 63:
        raise Unreadable("its records have no numbers")
    kind = said[0]
    found = {key: body[key] for key in ("seq_first", "seq_last", "oldest_seq_held")}
    found["generation"] = identity(body["generation"])
    found[kind] = {"birth": birth, "block": block, "gap": gap, "finding": finding}[kind](body[kind])
    ends = [each["start_ms"] + each["length_ms"] for each in found["block"]["intervals"]] if kind == "block" else []
    found["clock"] = clock(body["clock"], body["generation"], ends[-1] if ends else 0)
    return found


def state(payload):
    found = of_payload("State", payload, CONTROL_BYTES_MAX)
    return found | {"generation": identity(found["generation"]), "clock": clock(found["clock"])}


def config(payload):
    return of_payload("Config", payload, CONTROL_BYTES_MAX)


def ack(payload):
    found = of_payload("Ack", payload, CONTROL_BYTES_MAX)
    generations = [
        {
            "generation": identity(each["generation"]),
            "through_seq": each["through_seq"],
            "ranges": [[part["first"], part["last"]] for part in each["ranges"]],
        }
        for each in found["generations"]
    ]
    wanted = [identity(schema) for schema in found["births_wanted"]]
    return found | {"start": identity(found["start"]), "generations": generations, "births_wanted": wanted}


def ack_payload(archive, start, generations, births_wanted):
    """The inverse of `ack`; generations as (generation, through_seq, [(first, last)])."""
    said = [
        {
            "generation": int(generation, 16),
            "through_seq": through,
            "ranges": [{"first": first, "last": last} for first, last in ranges],
        }
        for generation, through, ranges in generations
    ]
    wanted = [int(schema, 16) for schema in births_wanted]
    ack = {"archive": archive, "start": int(start, 16), "generations": said, "births_wanted": wanted}
    return bytes([VERSION, 0, 0, 0]) + protobuf.encode(PROTO, "Ack", ack)


def of_payload(name, payload, bytes_max):
    try:
        return protobuf.decode(PROTO, name, inflated(payload, bytes_max))
    except (protobuf.Malformed, zstandard.ZstdError) as error:
        raise Unreadable(str(error)) from error


def inflated(payload, bytes_max):
    """The protobuf behind the 4 bytes of header."""
    if len(payload) < 4 or len(payload) > PAYLOAD_BYTES_MAX:
        raise Unreadable(f"{len(payload)} bytes")
    version, flags, dictionary = struct.unpack_from("<BBH", payload)
    if version != VERSION or flags & ~ZSTD:
        raise Unreadable(f"version {version}, flags {flags}")
    body = payload[4:]
    if flags & ZSTD:
        # Never more memory than the format allows, whatever the frame says.
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= bytes_max:
            raise Unreadable(f"a frame of {size} bytes")
        body = decompressor(dictionary).decompress(body, max_output_size=bytes_max)
    elif dictionary:
        raise Unreadable("a dictionary without compression")
    if len(body) > bytes_max:
        raise Unreadable(f"a body of {len(body)} bytes")
    return body


DECOMPRESSORS = {0: zstandard.ZstdDecompressor()}


def decompressor(dictionary):
    """By the id in the header; a dictionary is the file `dictionaries/<id>.zdict` beside feed.proto."""
    if dictionary not in DECOMPRESSORS:
        path = FORMAT / "dictionaries" / f"{dictionary}.zdict"
        if not path.exists():
            raise Unreadable(f"dictionary {dictionary}")
        data = zstandard.ZstdCompressionDict(path.read_bytes())
        DECOMPRESSORS[dictionary] = zstandard.ZstdDecompressor(dict_data=data)
    return DECOMPRESSORS[dictionary]


def identity(number):
    """Identities are random 64-bit numbers: as text, since neither SQLite nor JSON has unsigned ones."""
    return f"{number:016x}"


def signed(number):
    """Wraps around at 64 bits, as every difference of the format does."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    return number - (1 << 64) if number >> 63 else number


def clock(reading, generation=0, end_ms=0):
    """A block tells its time by the end of its last interval, and a boot that began with the generation by that."""
    reading = reading or {"wall_ms": 0, "monotonic_ms": 0, "boot_id": 0, "after_ms": 0}
    wall_ms = reading["wall_ms"] or (end_ms and max(0, end_ms + reading["after_ms"]))
    boot_id = identity(reading["boot_id"] or generation)
    return {"wall_ms": wall_ms, "monotonic_ms": reading["monotonic_ms"], "boot_id": boot_id}


def birth(said):
    previous = None
    if said["previous_seq_last"]:
        previous = {"generation": identity(said["previous_generation"]), "seq": said["previous_seq_last"]}
    metrics = []
    for metric in said["metrics"]:
        if metric["kind"] not in KINDS or metric["plugin"] >= len(said["plugins"]):
            raise Unreadable(f"metric {metric['name']}")
        metrics.append(metric | {"kind": KINDS[metric["kind"]], "currency": metric["currency"] or None})
    for series in said["series"]:
        keys = metrics[series["metric"]]["label_keys"] if series["metric"] < len(metrics) else None
        if keys is None or len(keys) != len(series["label_values"]):
            raise Unreadable(f"series {series['id']}")
    return {
        "schema": identity(said["schema"]),
        "agent_version": said["agent_version"],
        "previous": previous,
        "metrics": metrics,
        "series": said["series"],
        "plugins": said["plugins"],
        "window_ms": said["window_ms"],
    }


def gap(said):
    return {"reason": GAP_REASONS.get(said["reason"], "Unknown")}


def finding(said):
    if said["p"] > 255 or not -(1 << 15) <= said["effect"] < 1 << 15:
        raise Unreadable(f"a score of {said['p']} and {said['effect']}")
    kept = ("revision", "metric", "unit", "role", "decimals", "plugin", "start_ms", "peak_ms", "window_ms")
    return {key: said[key] for key in kept} | {
        "id": identity(said["id"]),
        "currency": said["currency"] or None,
        "labels": [[label["key"], label["value"]] for label in said["labels"]],
        "end_ms": said["end_ms"] or None,
        "log10_p": tenths(-said["p"]),
        "effect": tenths(said["effect"]),
        "expected": said["expected"],
        "actual": said["actual"],
    }


def tenths(number):
    return number / 10 + 0.0


class Columns:
    """The columns of a block, read from front to back; one that has a single value may hold for all rows."""

    ALIKE = {"length_ms", "rows", "has_histogram", "scale", "exponent", "zeros", "score_flags"}
    # What an empty column means.
    NONE = ("has_histogram", "zero_count", "negative_offset", "negative_length", "zeros", "score_flags")
    EMPTY = dict.fromkeys(NONE, 0)

    def __init__(self, block):
        self.columns, self.at, self.all = block, dict.fromkeys(block, 0), {}
        # First buckets of the interval before and of this one: each is told by the one in its place before.
        self.before, self.now = [], []
        for name, values in block.items():
            if name in self.EMPTY and not values:
                self.all[name] = self.EMPTY[name]
            elif name in self.ALIKE and len(values) == 1:
                self.all[name] = values[0]

    def next(self, name):
        if name in self.all:
            return self.all[name]
        at = self.at[name]
        if at >= len(self.columns[name]):
            raise Unreadable(f"column {name} is too short")
        self.at[name] = at + 1
        return self.columns[name][at]

    def end(self):
        for name, at in self.at.items():
            if name not in self.all and name not in ("schema", "intervals_per_record") and at < len(self.columns[name]):
                raise Unreadable(f"column {name} is too long")


def block(said):
    columns = Columns(said)
    records = said["intervals_per_record"] or [1] * len(said["start_ms"])
    if sum(records) != len(said["start_ms"]) or len(records) > RECORDS_MAX or len(said["series"]) > ROWS_MAX:
        raise Unreadable("its records, intervals and rows do not fit together")
    intervals, start_ms = [], 0
    for _ in said["start_ms"]:
        start_ms += columns.next("start_ms")
        intervals.append(interval(columns, start_ms))
    columns.end()
    return {"schema": identity(said["schema"]), "records": records, "intervals": intervals}


def interval(columns, start_ms):
    length_ms, rows, series = columns.next("length_ms"), [], -1
    if not (0 <= start_ms <= TIME_MS_MAX and 0 < length_ms <= INTERVAL_MS_MAX):
        raise Unreadable(f"an interval of {length_ms} ms at {start_ms}")
    for _ in range(min(columns.next("rows"), ROWS_MAX + 1)):
        series += 1 + columns.next("series")
        rows.append(row(columns, series))
    columns.before, columns.now = columns.now, []
    return {"start_ms": start_ms, "length_ms": length_ms, "rows": rows}


def row(columns, series):
    has_histogram, count, found, predicted, unit = columns.next("has_histogram"), columns.next("count"), None, None, 1
    if has_histogram:
        found = histogram(columns)
        predicted = Prediction(found, columns.next("exponent"))
        zeros = columns.next("zeros")
        if zeros > 9:
            raise Unreadable(f"{zeros} zeros")
        unit = 10**zeros
        count += found["zero_count"] + sum(found["positive"]["counts"]) + sum(found["negative"]["counts"])
    count = signed(count)
    if count < 0:
        raise Unreadable("a count beyond 63 bits")
    minimum, maximum, total = numbers(columns, count, predicted, unit)
    summary = {"count": count, "sum": total, "min": minimum, "max": maximum, "histogram": found}
    return {"series": series} | summary | {"score": score(columns)}


def numbers(columns, count, predicted, unit):
    """Minimum, maximum and sum, sent divided by the unit."""
    if count == 0:
        return 0, 0, 0
    minimum, maximum, total = multiples(columns, count, predicted)
    minimum, maximum = whole_product(minimum, unit), whole_product(maximum, unit)
    if total is not None:
        return minimum, maximum, whole_product(total, unit)
    return minimum, maximum, clamped(count * minimum if minimum == maximum else minimum + maximum)


def multiples(columns, count, predicted):
    """Each is the difference to what the others say already; no sum where it follows from them."""
    minimum = signed(columns.next("min") + (predicted.low if predicted else 0))
    if count == 1:
        return minimum, minimum, None
    sent = columns.next("max")
    maximum = signed(predicted.high - sent if predicted else minimum + sent)
    if maximum < minimum:
        raise Unreadable("a maximum below its minimum")
    if maximum == minimum or count == 2:
        return minimum, maximum, None
    if predicted:
        expected = signed(predicted.between + minimum + maximum)
    else:
        expected = clamped(count * (minimum + maximum) >> 1)
    return minimum, maximum, signed(columns.next("sum") + expected)


def whole_product(number, unit):
    product = number * unit
    if product != clamped(product):
        raise Unreadable(f"{number} times {unit}")
    return product


def clamped(number):
    return max(-(1 << 63), min(number, (1 << 63) - 1))


def histogram(columns):
    zero_count, scale = columns.next("zero_count"), columns.next("scale")
    if not -10 <= scale <= 4:
        raise Unreadable(f"scale {scale}")
    return {
        "scale": scale,
        "zero_count": zero_count,
        "positive": buckets(columns, "positive"),
        "negative": buckets(columns, "negative"),
    }


def buckets(columns, sign):
    offset, length = columns.next(f"{sign}_offset"), columns.next(f"{sign}_length")
    if sign == "positive":
        place = len(columns.now)
        offset += columns.before[place] if place < len(columns.before) else 0
        columns.now.append(offset)
    counts = []
    for _ in range(min(length, BUCKETS_MAX + 1)):
        empty, few = divmod(columns.next(f"{sign}_bucket"), 8)
        if len(counts) + empty >= BUCKETS_MAX:
            raise Unreadable(f"{len(counts) + empty + 1} buckets")
        counts += [0] * empty + [few + 1 + (columns.next(f"{sign}_bucket") if few == 7 else 0)]
    while counts and not counts[0]:
        del counts[0]
        offset += 1
    while counts and not counts[-1]:
        del counts[-1]
    return {"offset": offset if counts else 0, "counts": counts}


def score(columns):
    flags = columns.next("score_flags")
    if flags == 0:
        return None
    name, alarm = SCORE_STATES.get(flags & ~4), bool(flags & 4)
    if name is None:
        raise Unreadable(f"score flags {flags}")
    if name == "warming":
        return {"state": name, "alarm": alarm, "log10_p": 0.0, "effect": 0.0, "missing": 0}
    p, effect, code = (columns.next(f"score_{part}") for part in ("p", "effect", "missing"))
    if p > 255 or not -(1 << 15) <= effect < 1 << 15:
        raise Unreadable(f"a score of {p} and {effect}")
    return {"state": name, "alarm": alarm, "log10_p": tenths(-p), "effect": tenths(effect), "missing": missing(code)}


def missing(code):
    """Six bits and how far they are shifted."""
    shift = max(0, min(abs(code) // 32 - 1, 64))
    size = abs(code) - 32 * shift << shift
    return clamped(-size if code < 0 else size)


def bounds():
    """2^(k/16), each the nearest double."""
    with localcontext() as context:
        context.prec = 60
        return [float(Decimal(2) ** (Decimal(k) / 16)) for k in range(16)]


BOUNDS = bounds()
SMALLEST, LARGEST = 2.0**-1022, 1.7976931348623157e308


def lower_edge(index, scale):
    fine = index << (4 - scale)
    power = max(-1022, min(fine >> 4, 1024))
    # In two steps, as 2^1024 alone is no double.
    bound = BOUNDS[fine & 15] * 2.0 ** (power // 2) * 2.0 ** (power - power // 2)
    return max(SMALLEST, min(bound, LARGEST))


def edges(index, scale):
    return lower_edge(index, scale), lower_edge(index + 1, scale)


class Prediction:
    """What a histogram says about minimum, maximum and sum: FORMAT.md, "Predictions", in its order of operations."""

    def __init__(self, histogram, exponent):
        if exponent > 9:
            raise Unreadable(f"exponent {exponent}")
        power, scale = float(10**exponent), histogram["scale"]
        positive, negative = filled(histogram["positive"]), filled(histogram["negative"])
        low, high = outermost(positive, negative, histogram["zero_count"], scale)
        middles = middles_of(positive, scale) - middles_of(negative, scale)
        between = middles - (low[0] + low[1]) / 2.0 - (high[0] + high[1]) / 2.0
        self.low = whole(low[0] * power, up=False)
        self.high = whole(high[1] * power, up=True)
        self.between = whole(between * power, up=False)


def filled(buckets):
    return list(enumerate(buckets["counts"], buckets["offset"]))


def outermost(positive, negative, zero_count, scale):
    """Both edges of the bucket with the lowest values, and of that with the highest."""
    zero = [(0.0, 0.0)] if zero_count or not positive and not negative else []
    mirrored = [tuple(-edge for edge in reversed(edges(index, scale))) for index, _ in ends(negative)]
    straight = [edges(index, scale) for index, _ in ends(positive)]
    ascending = mirrored[::-1] + zero + straight
    return ascending[0], ascending[-1]


def ends(buckets):
    return [buckets[0], buckets[-1]] if buckets else []


def middles_of(buckets, scale):
    total = 0.0
    for index, count in buckets:
        low, high = edges(index, scale)
        total += float(count) * ((low + high) / 2.0)
    return total


def whole(real, up):
    """Rounded down or up, cut to 64 bits; 0 for what is no number."""
    if real != real:
        return 0
    if abs(real) >= 2.0**63:
        return clamped(1 << 64 if real > 0 else -(1 << 64))
    return -int(-real // 1) if up else int(real // 1)
