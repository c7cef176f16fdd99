"""Acknowledged means durable: over a full journal, a stop, and SIGKILL."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from connectors.fakes import MemoryAppender
from tests.conformance.processes import Processes
from tests.conformance.receiving import payloads, receiver
from tests.conformance.subject import Subject, in_thread, numbers
from tests.receivers.running import running, until


def test_acknowledges_only_after_durable(subject: Subject, tmp_path: Path) -> None:
    """While the journal takes nothing, a peer that speaks to the source itself is told nothing."""

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            appender.fill()
            subject.send(numbers(0, 50))
            settling = in_thread(subject.settle)
            if subject.direct:
                await asyncio.sleep(0.5)
                assert subject.told_safe() == 0
            appender.drain()
            await settling
            await until(lambda: len(appender.frames) == 50)
            assert subject.told_safe() == 50
        assert payloads(appender) == numbers(0, 50)

    asyncio.run(scene())


def test_what_is_not_durable_comes_again(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        settling: asyncio.Future[None]
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            appender.fill()
            subject.send(numbers(0, 50))
            settling = in_thread(subject.settle)
            await asyncio.sleep(0.5)
        assert appender.frames == []
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await settling
            await until(lambda: len(appender.frames) >= 50)
        assert payloads(appender) == numbers(0, 50)

    asyncio.run(scene())


def test_sigkill(subject: Subject, processes: Processes) -> None:
    """Six SIGKILLs at seeded moments, four of the receiver and two of the journal: what was told safe is in
    the journal, in order, and where the kind says so once."""
    kill_at_random(subject, processes, kills=6, seed=20260301)


def kill_at_random(subject: Subject, processes: Processes, kills: int, seed: int) -> int:
    """Raises AssertionError for what is lost or out of order; returns how many came twice. Each third kill
    is the journal's."""
    draw = random.Random(seed)
    processes.wait_state("connected")
    sent = 0
    for number in range(kills):
        for _ in range(draw.randrange(1, 4)):
            count = draw.randrange(20, 200)
            subject.send(numbers(sent, sent + count))
            sent += count
            time.sleep(draw.uniform(0.0, 0.1))
        if number % 3 == 2:
            processes.journal.kill()
            processes.journal.wait()
            processes.start_journal()
        else:
            processes.receiver.kill()
            processes.receiver.wait()
            processes.start_receiver()
        processes.wait_state("connected")
        subject.settle()
    found: list[bytes] = []

    def complete() -> bool:
        found[:] = processes.journaled()
        return set(numbers(0, sent)) <= set(found)

    processes.until(complete, f"every one of {sent} frames")
    assert list(dict.fromkeys(found)) == numbers(0, sent)
    if subject.exactly_once:
        assert found == numbers(0, sent)
    return len(found) - sent
