"""A receiver running in the background of a test's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from connectors.source import Appender, Receiver


async def until(condition: Callable[[], object], what: str = "condition", seconds: float = 30.0) -> None:
    """Poll until it holds; fails after a generous time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(receiver: Receiver, appender: Appender) -> AsyncIterator[asyncio.Task[None]]:
    """Runs it; at the end it must stop within 5 s."""
    stop = asyncio.Event()
    task = asyncio.create_task(receiver.run(appender, stop))
    try:
        yield task
    finally:
        stop.set()
        done, _ = await asyncio.wait({task}, timeout=5.0)
        assert done, "the receiver did not stop within 5 s"
    task.result()
