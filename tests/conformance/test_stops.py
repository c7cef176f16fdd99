"""A source stops within 5 s, whatever its peer and the journal do."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path

from connectors.fakes import MemoryAppender
from tests.conformance.processes import Processes
from tests.conformance.receiving import receiver
from tests.conformance.subject import Subject, ended, numbers
from tests.receivers.running import running, until

WITHIN_S = 6.0  # 5 s, and an interpreter's end on a busy machine


def test_stops_within_five_seconds_while_the_journal_is_full(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            appender.fill()
            subject.send(numbers(0, 20))
            await asyncio.sleep(0.3)
        assert source.status.state == "stopped"
        assert appender.frames == []

    asyncio.run(scene())


def test_stops_within_five_seconds(subject: Subject, processes: Processes) -> None:
    """Idle; in the middle of a flood; with a journal that stands still."""
    status = processes.wait_state("connected")
    assert status["component"] == "receiver-line"
    stop(processes)

    processes.start_receiver()
    processes.wait_state("connected")
    over = threading.Event()
    flooding = threading.Thread(target=subject.flood, args=(over,))
    flooding.start()
    try:
        processes.until(lambda: processes.status()["metrics"].get("receiver_frames_total"), "a frame")
        stop(processes)
        processes.start_receiver()
        processes.wait_state("connected")
        processes.stall_journal(True)
        time.sleep(0.5)
        stop(processes)
    finally:
        over.set()
        flooding.join()


def stop(processes: Processes) -> None:
    processes.receiver.send_signal(signal.SIGTERM)
    assert ended(processes.receiver, WITHIN_S) == 0
