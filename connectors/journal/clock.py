"""The journal's clock: whole milliseconds that never go back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

STEP_MS: Final = 1000  # a wall clock that is off by more has been set, not drifted
SLEW: Final = 16  # while ahead of the wall clock, this clock loses one part in so many


class JournalClock:
    """Follows the wall clock, but runs by the monotonic clock between samples of it.

    `now_ms` never falls below what it or `at_least_ms` (the last entry) said. A wall clock that
    was set forward is followed at once, one that was set back is waited for: this clock then runs
    slower by 1/16 until the wall clock has caught up, so that it still advances. Either is told by
    `sample` as a step.
    """

    def __init__(
        self,
        at_least_ms: int = 0,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()  # read by the status, advanced by the writer
        self._ns = max(at_least_ms * 1_000_000, 0)
        self._seen = monotonic_ns()
        self._behind_ms = 0  # of the wall clock at the last sample, never above 0
        self._ahead = False
        wall = wall_ns()
        if wall >= self._ns:
            self._ns = wall

    def now_ms(self) -> int:
        """The clock now."""
        with self._lock:
            return self._advance() // 1_000_000

    def sample(self) -> int:
        """Compare with the wall clock, once a second: by how many milliseconds it has been set
        (or the machine slept) since the last sample; 0 where that is within STEP_MS."""
        with self._lock:
            now = self._advance()
            difference = self._wall_ns() - now
            self._ahead = difference < 0
            self._ns = now + max(difference, 0)
            step = difference // 1_000_000 - self._behind_ms
            self._behind_ms = min(difference, 0) // 1_000_000
        return step if abs(step) > STEP_MS else 0

    def _advance(self) -> int:
        seen = self._monotonic_ns()
        passed = max(seen - self._seen, 0)
        self._seen = seen
        self._ns += passed - passed // SLEW if self._ahead else passed
        return self._ns
