"""A peer dies and returns, and sends what nobody expects; the source goes on without a restart."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

from connectors.backoff import Backoff
from connectors.fakes import MemoryAppender
from tests.conformance.proxy import Proxy
from tests.conformance.receiving import payloads, receiver
from tests.conformance.subject import CAP, Subject, in_thread, numbers
from tests.receivers.running import running, until


def test_peer_returns(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send(numbers(0, 10))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 10)
            await in_thread(subject.break_peer)
            subject.send(numbers(10, 20))
            await in_thread(subject.settle)
            await until(lambda: set(numbers(10, 20)) <= set(payloads(appender)))

    asyncio.run(scene())


def test_a_poison_frame_passes(subject: Subject, tmp_path: Path) -> None:
    """Odd bytes are somebody else's business; frames behind them come through."""
    poison = [b"\xff\xfe\x00", b'"', b"[" * 5000, b"\x00", b"z" * CAP]

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send([*numbers(0, 5), *poison, *numbers(5, 10)])
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 15)
        got = payloads(appender)
        assert [payload for payload in got if payload.startswith(b"frame")] == numbers(0, 10)
        assert got[5:10] == poison

    asyncio.run(scene())


def test_back_off(subject: Subject, proxy: Proxy, tmp_path: Path) -> None:
    """A peer that takes every connection and ends it at once is tried less and less often, with jitter;
    when it is well again, the source is connected."""
    proxy.hanging_up = True

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: len(proxy.attempts) >= 5)
            attempts = proxy.attempts[:5]
            gaps = [later - earlier for earlier, later in pairwise(attempts)]
            least = [subject.first_pause_s / 2 * 2**number for number in range(len(gaps))]
            assert all(gap >= bound for gap, bound in zip(gaps, least, strict=True)), gaps
            assert source.status.state == "disconnected"
            shares = {round(gap / bound, 2) for gap, bound in zip(gaps, least, strict=True)}
            assert len(shares) > 1, gaps
            proxy.hanging_up = False
            await until(lambda: source.status.state in ("connected", "silent"))
            subject.send(numbers(0, 10))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 10)
        assert payloads(appender) == numbers(0, 10)

    asyncio.run(scene())


def test_pauses_double_up_to_their_limit_with_jitter() -> None:
    backoff = Backoff(first_s=0.25, limit_s=30.0)
    pauses = [backoff.next() for _ in range(200)]
    for number, pause in enumerate(pauses):
        whole = min(0.25 * 2**number, 30.0)
        assert whole / 2 <= pause <= whole
    assert len(set(pauses)) == len(pauses)
    assert max(pauses[50:]) - min(pauses[50:]) > 10.0
    backoff.reset()
    assert backoff.next() <= 0.25
