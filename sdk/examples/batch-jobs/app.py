"""How long a store's nightly jobs take, and which of them fail."""

import json
from datetime import datetime

from componentize_py_types import Err
from wit_world import WitWorld as Contract
from wit_world.imports import clock, log, source
from wit_world.imports.types import (
    Batch,
    Descriptor,
    Error,
    ErrorKind,
    Kind,
    Metric,
    Series,
    Values_Integers,
    Values_Reals,
)

READ_BYTES_MAX = 64 * 1024

# As plugin.toml lists them: a series names its metric by this order.
METRICS = [
    Metric("batch.job.duration", "s", Kind.DISTRIBUTION, "How long a job took.", ["job"], "", 3, None),
    Metric("batch.job.failures", "{job}", Kind.SUM, "Jobs that ended as failed.", ["job"], "", 0, None),
    Metric("source.parse_errors", "{line}", Kind.SUM, "Lines that were not understood.", [], "", 0, None),
]
DURATION, FAILURES, PARSE_ERRORS = range(3)


def parse(line):
    """The time in milliseconds, the job, whether it failed and the seconds it took; a ValueError when it is no such line."""
    time, job, outcome, seconds = line.decode("ascii").split(" ")
    if outcome not in ("ok", "failed") or not time.endswith("Z"):
        raise ValueError(outcome)
    moment = datetime.fromisoformat(time)
    return int(moment.timestamp() * 1000), job, outcome == "failed", float(seconds)


class WitWorld(Contract):
    """The exports of the contract."""

    def __init__(self):
        self.longest_s = 86400

    def describe(self):
        return Descriptor("batch-jobs", "0.1.0", METRICS, 10000, [])

    def configure(self, settings):
        read = json.loads(settings)
        if type(read) is not dict:
            raise Err(Error(ErrorKind.CONFIG, "the settings are no object"))
        self.longest_s = read.pop("longest_s", self.longest_s)
        if read:
            raise Err(Error(ErrorKind.CONFIG, f"unknown settings: {', '.join(read)}"))
        if type(self.longest_s) is not int or self.longest_s <= 0:
            raise Err(Error(ErrorKind.CONFIG, f"longest_s must be a positive integer, not {self.longest_s!r}"))

    def collect(self):
        try:
            lines = source.read_lines("jobs", READ_BYTES_MAX)
        except Err as err:
            raise Err(Error(ErrorKind.TRANSIENT, f"jobs: {err.value.name.lower()}"))
        durations, failures, problems = {}, {}, 0
        for line in lines.bytes.splitlines():
            try:
                time_ms, job, failed, seconds = parse(line)
                if not 0 <= seconds <= self.longest_s:
                    raise ValueError(seconds)
            except ValueError:
                problems += 1
                continue
            durations.setdefault(job, []).append((time_ms, seconds))
            if failed:
                failures.setdefault(job, []).append((time_ms, 1))
        batch = [series(DURATION, job, found, Values_Reals) for job, found in durations.items()]
        batch += [series(FAILURES, job, found, Values_Integers) for job, found in failures.items()]
        if problems:
            batch.append(Series(PARSE_ERRORS, [], Values_Integers([problems]), [clock.now_ms()]))
            log.write(log.Level.DEBUG, f"{problems} lines were not understood")
        return Batch(batch, lines.more)


def series(metric, job, found, values):
    """All that was found of one job."""
    return Series(metric, [job], values([value for _, value in found]), [time_ms for time_ms, _ in found])
