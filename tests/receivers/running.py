"""A receiver running in the background of a test's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from connectors.source import Appender, Receiver
from tests.waiting import LIMIT_S

STOP_S = 5.0
LOOK_S = 0.05


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """As `tests.waiting.until`, beside other tasks of this loop."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S:.0f} s for {what}"
        await asyncio.sleep(0.005)


async def ended(task: asyncio.Task[None]) -> bool:
    """Whether it ends within 5 s as this loop has them: on a busy machine the loop waits for its turn."""
    for _ in range(round(STOP_S / LOOK_S)):
        await asyncio.wait({task}, timeout=LOOK_S)
        if task.done():
            return True
    return False


@asynccontextmanager
async def running(receiver: Receiver, appender: Appender) -> AsyncIterator[asyncio.Task[None]]:
    """Runs it; at the end it must stop within 5 s."""
    stop = asyncio.Event()
    task = asyncio.create_task(receiver.run(appender, stop))
    try:
        yield task
    finally:
        stop.set()
        assert await ended(task), "the receiver did not stop within 5 s"
    task.result()
