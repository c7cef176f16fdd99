"""A subject's receiver in the test's own event loop, against a journal in memory."""

from __future__ import annotations

from pathlib import Path

from connectors.fakes import MemoryAppender
from connectors.source import Receiver
from flows.receiver import SourceFile, build_receiver
from tests.conformance.subject import Subject


def receiver(subject: Subject, tmp_path: Path) -> Receiver:
    """As its process would build it."""
    return build_receiver(SourceFile(plant="works", source="line", config=subject.config), tmp_path / "data")


def payloads(appender: MemoryAppender) -> list[bytes]:
    """What is durable, in order."""
    return [frame.payload for frame in appender.frames]
