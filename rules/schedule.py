"""Schedules of rules: windows in event time that cron expressions begin (`for` each so long).

Cron is read by cronsim, in the zone of the schedule; a window lasts in elapsed time, so one that
spans a change to or from daylight saving time is no longer and no shorter. Zones come from the tzdata
package, so that every machine has the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from cronsim import CronSim, CronSimError

from operators.batch import Int64
from operators.spec import DAY, SECOND
from rules.spec import Schedule

LONGEST: Final = 366 * DAY
_CHUNK: Final = 8 * DAY
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNKS_KEPT: Final = 512
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*\Z")


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo | None:
    """A time zone by its IANA name; None where there is none of that name."""
    if not _ZONE.match(name):
        return None
    package, _, file = f"tzdata.zoneinfo.{name.replace('/', '.')}".rpartition(".")
    try:
        with (resources.files(package) / file).open("rb") as data:
            return ZoneInfo.from_file(data, key=name)
    except (ImportError, OSError, ValueError):
        return None


def schedule_problem(schedule: Schedule) -> tuple[str, str] | None:
    """What is wrong with a schedule: its key and what to do; None where nothing is."""
    if schedule.timezone is not None and zone_of(schedule.timezone) is None:
        return "timezone", f"no time zone '{schedule.timezone[:60]}'; write for example Asia/Seoul"
    if not 0 < schedule.for_ <= LONGEST:
        return "for", "a window lasts more than 0s and at most 366d"
    if len(schedule.cron) > 200 or len(schedule.cron.split()) != 5:
        return "cron", "five fields are expected: minute hour day month weekday, e.g. 0 6 * * 1-5"
    try:
        next(CronSim(schedule.cron, _EPOCH))
    except (CronSimError, StopIteration) as error:
        what = str(error)
        told = f"{what[0].lower()}{what[1:]}" if what else "never comes"
        return "cron", f"'{schedule.cron}' is no cron expression: {told}; e.g. 0 6 * * 1-5"
    return None


class Windows:
    """The windows of one or several schedules, merged where they overlap or touch."""

    def __init__(self, schedules: Sequence[Schedule], timezone: str) -> None:
        self._schedules = [(one.cron, zone_of(one.timezone or timezone), one.for_) for one in schedules]
        self._chunks: dict[int, Int64] = {}

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, schedules: tuple[Schedule, ...], timezone: str) -> Windows:
        """The same object for equal schedules, so that their windows are computed once."""
        return cls(schedules, timezone)

    def covers(self, ts_ns: Int64) -> npt.NDArray[np.bool_]:
        """bool[N]: whether each moment lies in a window; its start belongs to it, its end does not."""
        if not len(ts_ns):
            return np.zeros(0, np.bool_)
        chunk = ts_ns // _CHUNK
        first, last = int(chunk.min()), int(chunk.max())
        if first == last:
            return self._inside(first, ts_ns)
        inside = np.zeros(len(ts_ns), np.bool_)
        for one in np.unique(chunk).tolist():
            here = chunk == one
            inside[here] = self._inside(one, ts_ns[here])
        return inside

    def _inside(self, chunk: int, ts_ns: Int64) -> npt.NDArray[np.bool_]:
        edges = self._chunks.get(chunk)
        if edges is None:
            if len(self._chunks) >= _CHUNKS_KEPT:
                self._chunks.clear()
            edges = self._chunks[chunk] = self._edges(chunk)
        inside: npt.NDArray[np.bool_] = np.searchsorted(edges, ts_ns, "right") % 2 == 1
        return inside

    def _edges(self, chunk: int) -> Int64:
        """Starts and ends by turns of all windows that touch a chunk of time."""
        begin, end = chunk * _CHUNK, (chunk + 1) * _CHUNK
        spans = sorted(
            (start, start + length)
            for cron, zone, length in self._schedules
            for start in _starts(cron, zone, begin - length, end)
        )
        edges: list[int] = []
        for start, stop in spans:
            if edges and start <= edges[-1]:
                edges[-1] = max(edges[-1], stop)
            else:
                edges += (start, stop)
        return np.array(edges, np.int64)


def _starts(cron: str, zone: ZoneInfo | None, after_ns: int, before_ns: int) -> Iterator[int]:
    """When windows begin: after_ns <= start < before_ns, nanoseconds since 1970."""
    # two days earlier: what cron does about a skipped or repeated hour reaches no further
    begin = (_EPOCH + timedelta(seconds=after_ns // SECOND) - timedelta(days=2)).astimezone(zone or UTC)
    for moment in CronSim(cron, begin):
        start = int((moment.astimezone(UTC) - _EPOCH) / timedelta(seconds=1)) * SECOND
        if start >= before_ns:
            return
        if start >= after_ns:
            yield start
