"""Ten times what the journal takes, and more: back-pressure, not growth."""

from __future__ import annotations

import threading
import time

from tests.conformance.processes import Processes
from tests.conformance.subject import Subject, numbers

GROWTH = 150_000_000  # bytes of resident memory above that of the idle receiver
STALLED_S = 2.0
SLOW_S = 2.0
STEP_S = 0.1  # of which the journal runs a tenth while it is slow


def test_a_flood(subject: Subject, processes: Processes) -> None:
    """A peer floods while the journal first stands still and then gets a tenth of the time."""
    processes.wait_state("connected")
    grown = flooded(subject, processes, STALLED_S, SLOW_S)
    print(f"grown by {grown / 1e6:.0f} MB")
    assert grown < GROWTH
    subject.send(numbers(0, 20))
    subject.settle()
    processes.until(
        lambda: [one for one in processes.journaled() if one.startswith(b"frame")] == numbers(0, 20),
        "what came behind the flood",
    )


def flooded(subject: Subject, processes: Processes, stalled_s: float, slow_s: float) -> int:
    """By how much the receiver grew."""
    before = most = processes.resident_bytes()
    over = threading.Event()
    flooding = threading.Thread(target=subject.flood, args=(over,))
    flooding.start()
    try:
        processes.stall_journal(True)
        end = time.monotonic() + stalled_s
        while time.monotonic() < end:
            time.sleep(STEP_S)
            most = max(most, processes.resident_bytes())
        end = time.monotonic() + slow_s
        while time.monotonic() < end:
            processes.stall_journal(False)
            time.sleep(STEP_S / 10)
            processes.stall_journal(True)
            time.sleep(STEP_S * 9 / 10)
            most = max(most, processes.resident_bytes())
    finally:
        over.set()
        processes.stall_journal(False)
        flooding.join()
    return most - before
