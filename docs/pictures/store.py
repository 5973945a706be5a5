"""A simulated store as CSV files, for the pictures in docs/SCORING.md; always the same for the same seed.

    python3 store.py sales > sales.csv
"""

import math
import random
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

DAYS = 28
WINDOW = timedelta(minutes=5)
ZONE = ZoneInfo("Europe/Berlin")
START = datetime(2026, 3, 2, tzinfo=ZONE).astimezone(timezone.utc)
# What happens in the fourth week: start, end, factor.
INCIDENTS = {
    "sales": [(datetime(2026, 3, 24, 11, 30), datetime(2026, 3, 24, 12, 15), 0.3),
              (datetime(2026, 3, 27, 17, 0), datetime(2026, 3, 27, 17, 45), 0.0)],
    "latency": [(datetime(2026, 3, 24, 11, 20), datetime(2026, 3, 24, 12, 15), 3.0)],
    "queue": [(datetime(2026, 3, 26, 15, 0), datetime(2026, 3, 26, 16, 0), 3.0)],
    "clean": [],
}


def load(time):
    """Closed from 21 to 7 and on Sundays; busy at noon, at 17 and on Saturdays."""
    hour, day = time.hour + time.minute / 60, time.weekday()
    if not 7 <= hour < 21 or day == 6:
        return 0.0
    bump = lambda at: math.exp(-((hour - at) ** 2) / 4)
    return (0.5 + 0.6 * bump(12) + 0.7 * bump(17)) * (1.3 if day == 5 else 1.0)


def poisson(r, mean):
    product, count = r.random(), 0
    while product > math.exp(-mean):
        product *= r.random()
        count += 1
    return count


def value(kind, r, time, factor, slow):
    busy = load(time)
    if kind in ("sales", "clean"):
        return poisson(r, 60 * busy * factor * math.exp(slow * 0.3))
    if kind == "queue":
        return round(sum(poisson(r, 4 * (0.3 + busy) * math.exp(slow) * factor) for _ in range(6)) / 6, 2)
    return round(1.3 * factor * math.exp(0.3 * busy + slow * 0.3 + r.gauss(0, 0.08)), 3) if busy else ""


def main(kind, seed):
    r = random.Random(seed)
    slow = 0.0
    print("timestamp,value")
    for step in range(DAYS * 288):
        at = (START + step * WINDOW).astimezone(ZONE)
        time = at.replace(tzinfo=None)
        slow = 0.9 * slow + 0.05 * r.gauss(0, 1)
        factor = next((factor for start, end, factor in INCIDENTS[kind] if start <= time < end), 1.0)
        print(f"{at.isoformat()},{value(kind, r, time, factor, slow)}")


main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
