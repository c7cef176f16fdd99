"""A network that drips, cuts, freezes and loses connections without a word, between source and peer."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from connectors.fakes import MemoryAppender
from tests.conformance.proxy import Proxy
from tests.conformance.receiving import payloads, receiver
from tests.conformance.subject import Subject, in_thread, numbers
from tests.receivers.running import running, until


def test_bytes_that_drip(subject: Subject, proxy: Proxy, tmp_path: Path) -> None:
    """A byte at a time, and later in late pieces."""
    proxy.piece = subject.piece

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send(numbers(0, 20))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) >= 20)
            proxy.piece, proxy.delay_s = 1000, 0.02
            subject.send(numbers(20, 120))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) >= 120)
        assert payloads(appender) == numbers(0, 120)

    asyncio.run(scene())


def test_connections_cut_anywhere(subject: Subject, proxy: Proxy, tmp_path: Path) -> None:
    """Each connection is reset after so many bytes, at places that no frame knows of."""
    draw = random.Random(7)

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send(numbers(0, 20))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 20)
            proxy.cut_after = lambda: draw.randrange(*subject.cut)
            proxy.cut()
            await in_thread(lambda: send_in_parts(subject))
            await until(lambda: len(proxy.attempts) >= 4)
            proxy.cut_after = None
            proxy.cut()
            await until(lambda: set(numbers(0, 200)) <= set(payloads(appender)))
        whole = [one for one in payloads(appender) if one in set(numbers(0, 200))]
        assert list(dict.fromkeys(whole)) == numbers(0, 200)

    asyncio.run(scene())


def send_in_parts(subject: Subject) -> None:
    for start in range(20, 200, 20):
        subject.send(numbers(start, start + 20))
        subject.settle()


def test_a_connection_lost_without_a_word(subject: Subject, proxy: Proxy, tmp_path: Path) -> None:
    """Nothing passes any more, not even the end. The source lets go of it by itself."""

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send(numbers(0, 10))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 10)
            proxy.lose()
            subject.send(numbers(10, 20))
            await until(lambda: subject.noticed(source.status))
            if not subject.connects:
                await in_thread(subject.break_peer)  # the device's own time-outs are its own
            await in_thread(subject.settle)
            await until(lambda: set(numbers(10, 20)) <= set(payloads(appender)))

    asyncio.run(scene())


def test_a_connection_that_stands_still_goes_on(subject: Subject, proxy: Proxy, tmp_path: Path) -> None:
    """A freeze shorter than every time-out loses and doubles nothing."""

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send(numbers(0, 10))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 10)
            proxy.freeze()
            subject.send(numbers(10, 30))
            await asyncio.sleep(0.2)  # of the second after which it counts as dead
            assert len(appender.frames) == 10
            proxy.thaw()
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) >= 30)
        assert payloads(appender) == numbers(0, 30)

    asyncio.run(scene())


def test_a_peer_that_never_answers(subject: Subject, proxy: Proxy, tmp_path: Path) -> None:
    """It takes the connection and says nothing: tried again after a while, and shown meanwhile."""
    proxy.freeze()

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "disconnected")
            assert source.status.detail
            await until(lambda: len(proxy.attempts) >= 2)
            proxy.thaw()
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send(numbers(0, 10))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 10)

    asyncio.run(scene())
