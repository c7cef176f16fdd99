"""Waiting before a connection is tried again: doubling, capped, jittered."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Final

FIRST_S: Final = 0.25
LIMIT_S: Final = 30.0


class Backoff:
    """The pauses of one connection. The jitter keeps the receivers of a whole plant from
    coming back to a broker in the same moment; it reaches no output."""

    def __init__(self, first_s: float = FIRST_S, limit_s: float = LIMIT_S) -> None:
        self.first_s, self.limit_s = first_s, limit_s
        self._next_s = first_s

    def reset(self) -> None:
        """After a connection that held: begin with the first pause again."""
        self._next_s = self.first_s

    def next(self) -> float:
        """Seconds to wait now; half of it is fixed, half is jitter."""
        pause = self._next_s
        self._next_s = min(pause * 2, self.limit_s)
        return pause * (0.5 + random.random() / 2)  # noqa: S311 - no secret depends on it

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait for the next pause or for `stop`."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), self.next())
