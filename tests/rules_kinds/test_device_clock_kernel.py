"""The device-clock kernel against the plain reference, for every cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import device_clock_kernels as k
from tests.reference.device_clock import device_clock

IN_ORDER, REBASED = 4, 8
LIVE_WITHIN = 900

pieces = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(1, 40),  # so many readings
        st.sampled_from([0, 5, 60]),  # ingest time between two
        st.sampled_from([1, 5, 10, 11, 60]),  # event time between two
        st.sampled_from([None, 0, 100, 900, 901, 5000]),  # their first lag; None: goes on
        st.sampled_from([False, False, False, True]),  # its clock stepped
    ),
    max_size=8,
)


def stream(drawn: list[Any]) -> list[tuple[str, int, int, bool]]:
    now, readings = 1_000_000, []
    time = {0: now, 1: now}
    for device, count, gap, advance, lag, stepped in drawn:
        if lag is not None:
            time[device] = now - lag
        for at in range(count):
            now += gap
            time[device] += advance
            readings.append((f"d{device}", time[device], now, stepped and at == 0))
    return readings


@settings(max_examples=300, deadline=None, derandomize=True)
@given(pieces, st.integers(1, 50))
def test_equals_the_reference_for_every_cut(drawn: list[Any], cut: int) -> None:
    readings = stream(drawn)
    wanted = device_clock(readings, LIVE_WITHIN)
    for size in (1, cut, len(readings) or 1):
        state = (
            np.zeros(2, np.int32), np.zeros((2, 2), np.int64), np.zeros(2, np.uint8), np.zeros(2, np.int64),
        )  # fmt: skip
        found = []
        for at in range(0, len(readings), size):
            rows = readings[at : at + size]
            resume = np.zeros(1, np.int64)
            events = np.zeros((2, k.EVENT_COLUMNS), np.int64)
            while resume[0] < len(rows):
                count = k.watch_clocks(
                    LIVE_WITHIN,
                    np.array([int(one[0][1]) for one in rows], np.int32),
                    np.array([one[1] for one in rows], np.int64),
                    np.array([one[2] for one in rows], np.int64),
                    np.array([IN_ORDER | (REBASED if one[3] else 0) for one in rows], np.uint8),
                    *state, events, resume,
                )  # fmt: skip
                for line in events[:count].tolist():
                    found.append(
                        (
                            f"d{line[k.EVENT_DEVICE]}",
                            ("raised", "cleared")[line[k.EVENT_KIND]],
                            rows[line[k.EVENT_ROW]][1],
                            line[k.EVENT_ONSET],
                        )
                    )
        assert found == wanted


def ramp(count: int, gap: int, advance: int, lag: int) -> list[tuple[str, int, int, bool]]:
    return [("d0", 1_000_000 - lag + at * advance, 1_000_000 + at * gap, False) for at in range(count)]


def test_a_clock_an_hour_behind_raises_and_a_backlog_does_not() -> None:
    behind = device_clock(ramp(40, 5, 5, 3600), LIVE_WITHIN)
    assert behind == [("d0", "raised", 1_000_000 - 3600 + 15 * 5, 1_000_000 - 3600)]
    assert device_clock(ramp(700, 1, 5, 3600), LIVE_WITHIN) == []
