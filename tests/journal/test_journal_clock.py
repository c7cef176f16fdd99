"""The journal's clock: never back, steps told."""

from __future__ import annotations

import itertools

from connectors.journal.clock import JournalClock


class Clocks:
    """A machine whose clocks the test moves, in milliseconds."""

    def __init__(self, wall_ms: int) -> None:
        self.wall = wall_ms * 1_000_000
        self.monotonic = 0

    def pass_ms(self, ms: int, wall: int = 0) -> None:
        self.monotonic += ms * 1_000_000
        self.wall += (ms + wall) * 1_000_000

    def clock(self, at_least_ms: int = 0) -> JournalClock:
        return JournalClock(at_least_ms, lambda: self.wall, lambda: self.monotonic)


def test_between_samples_the_clock_runs_by_the_monotonic_clock() -> None:
    machine = Clocks(1_000_000)
    clock = machine.clock()
    machine.pass_ms(300, wall=7_000)
    assert clock.now_ms() == 1_000_300


def test_a_step_forward_is_followed_and_told_once() -> None:
    machine = Clocks(1_000_000)
    clock = machine.clock()
    machine.pass_ms(1000, wall=60_000)
    assert clock.sample() == 60_000
    assert clock.now_ms() == 1_061_000
    machine.pass_ms(1000)
    assert clock.sample() == 0


def test_a_step_back_is_told_once_and_waited_for() -> None:
    machine = Clocks(1_000_000)
    clock = machine.clock()
    machine.pass_ms(1000, wall=-8_000)
    assert clock.sample() == -8_000
    seen = [clock.now_ms()]
    for _ in range(200):
        machine.pass_ms(1000)
        assert clock.sample() == 0
        seen.append(clock.now_ms())
    assert seen[0] == 1_001_000
    assert all(0 < later - before <= 1000 for before, later in itertools.pairwise(seen))
    assert clock.now_ms() == machine.wall // 1_000_000


def test_drift_is_followed_and_not_told() -> None:
    machine = Clocks(1_000_000)
    clock = machine.clock()
    for drift in (400, -700, 900, -900, 0):
        machine.pass_ms(1000, wall=drift)
        before = clock.now_ms()
        assert clock.sample() == 0
        assert clock.now_ms() >= before


def test_the_clock_starts_no_earlier_than_the_last_entry() -> None:
    machine = Clocks(1_000_000)
    clock = machine.clock(at_least_ms=1_500_000)
    assert clock.now_ms() == 1_500_000
    assert clock.sample() == -500_000
    machine.pass_ms(16)
    assert clock.now_ms() == 1_500_015
