"""Numbers that a device counts its readings with, one reading at a time; imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FUTURE = 300_000_000_000  # max_future


def counted(readings: Sequence[Mapping[str, Any]], wraps: int | None) -> dict[str, tuple[int, int, int]]:
    """device -> (missing, gaps, restarts). readings: device, ts, ingest, values {"n": number} in order;
    none of them twice."""
    last: dict[str, tuple[int, int]] = {}
    found: dict[str, tuple[int, int, int]] = {}
    clock = _Clock()
    for reading in readings:
        device, at = reading["device"], reading["ts"]
        stepped = _accepted(reading) and clock.stepped(device, at)
        n = reading["values"].get("n")
        if n is None or n != int(n) or n < 0 or at > reading["ingest"] + FUTURE:
            continue
        number, before_at = last.get(device, (None, None))
        if before_at is not None and at < before_at and not stepped:
            continue
        last[device] = (int(n), at)
        if number is None:
            continue
        missing, gaps, restarts = found.get(device, (0, 0, 0))
        ahead = int(n) - number
        if wraps:
            ahead %= wraps
        if ahead < 0 or (wraps and ahead > wraps / 2):
            restarts += 1
        elif ahead > 1:
            missing, gaps = missing + ahead - 1, gaps + 1
        found[device] = (missing, gaps, restarts)
    return found


def _accepted(reading: Mapping[str, Any]) -> bool:
    n, t = reading["values"].get("n"), reading["values"].get("t")
    return not (t is not None and t > 100) and not (n is not None and n != int(n))


class _Clock:
    """Three readings that are older than the newest and rise among themselves are a stepped clock."""

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        self.run: dict[str, list[int]] = {}

    def stepped(self, device: str, at: int) -> bool:
        newest = self.newest.get(device)
        if newest is None or at > newest:
            self.newest[device], self.run[device] = at, []
        elif at < newest:
            run = self.run.setdefault(device, [])
            if run and at <= run[-1]:
                run.clear()
            run.append(at)
            if len(run) == 3:
                self.newest[device] = at
                run.clear()
                return True
        return False
