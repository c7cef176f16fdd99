"""`connected but silent` is noticed and shown."""

from __future__ import annotations

import asyncio
from pathlib import Path

from connectors.fakes import MemoryAppender
from tests.conformance.receiving import receiver
from tests.conformance.subject import Subject, in_thread, numbers
from tests.receivers.running import running, until


def test_silence(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "silent")
            subject.send(numbers(0, 1))
            settling = in_thread(subject.settle)
            await until(lambda: source.status.state == "connected")  # seen before it is silent again
            await settling

    asyncio.run(scene())


def test_who_waits_for_the_journal_is_not_silent(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "silent")
            appender.fill()
            subject.send(numbers(0, 1))
            settling = in_thread(subject.settle)
            await until(lambda: source.status.state == "connected")
            for _ in range(15):  # longer than `silent_after`, which is a second
                await asyncio.sleep(0.1)
                assert source.status.state == "connected"
            appender.drain()
            await settling

    asyncio.run(scene())
