"""A thread for blocking calls of the Kafka client."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_Task = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class CallThread:
    """Calls of one event loop, one after the other. Nothing waits for the thread when the process ends:
    while brokers are away a call may take as long as it likes."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, function: Callable[[], Any]) -> Any:
        """What it returns, or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._tasks.put((function, loop, future))
        return await future

    def _run(self) -> None:
        while True:
            function, loop, future = self._tasks.get()
            try:
                result = function()
            except BaseException as error:
                self._settle(loop, future, None, error)
            else:
                self._settle(loop, future, result, None)

    def _settle(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        result: Any,
        error: BaseException | None,
    ) -> None:
        def settle() -> None:
            if future.done():  # nobody waits any more
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle)
