"""A subject's receiver in the test's own event loop, against a journal in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connectors.fakes import MemoryAppender
from connectors.source import Appender, Frame, FrameRows, Leaving, Receiver
from flows.receiver import SourceFile, build_receiver
from tests.conformance.subject import Subject


def receiver(subject: Subject, tmp_path: Path) -> Receiver:
    """As its process would build it; its frames are those payloads that the subject reads in them."""
    built = build_receiver(SourceFile(plant="works", source="line", config=subject.config), tmp_path / "data")
    return built if type(subject).read is Subject.read else _Reading(built, subject.read)


class _Reading:
    def __init__(self, receiver: Receiver, read: Callable[[bytes], list[bytes]]) -> None:
        self.receiver, self.read, self.status = receiver, read, receiver.status

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        await self.receiver.run(_Payloads(appender, self.read), stop)


class _Payloads:
    """An appender that is given frames and hands on the payloads in them."""

    def __init__(self, appender: Appender, read: Callable[[bytes], list[bytes]]) -> None:
        self.appender, self.read, self.shards = appender, read, appender.shards

    def __getattr__(self, name: str) -> Any:
        return getattr(self.appender, name)

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        told = [Frame(one.topic, payload) for one in frames for payload in self.read(one.payload)]
        return await self.appender.append(told, key) if told else 0

    async def append_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Leaving | None = None
    ) -> int:
        told = [payload for one in rows.frames() for payload in self.read(one.payload)]
        none = np.zeros(len(told), np.uint32)
        sizes = np.array([len(payload) for payload in told], np.uint32)
        read = FrameRows(b"".join(told), sizes, none, none.astype(np.uint8), [("", -1, ())])
        return await self.appender.append_rows(read, key, leaving)


def payloads(appender: MemoryAppender) -> list[bytes]:
    """What is durable, in order."""
    return [frame.payload for frame in appender.frames]
