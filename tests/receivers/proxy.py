"""A TCP proxy in user space that does what networks do: delays, drips, cuts, goes silent."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """Passes bytes on to `target` of 127.0.0.1. delay_s: before each piece; piece: bytes at once;
    cut_after: bytes of a connection's sender after which the connection is reset."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.delay_s = 0.0
        self.piece = 65_536
        self.cut_after: int | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def half_open(self) -> None:
        """From now on nothing passes and nothing ends."""
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, onwards = await asyncio.open_connection("127.0.0.1", self._target)
        there = asyncio.create_task(self._pass(reader, onwards, self.cut_after))
        back = asyncio.create_task(self._pass(behind, writer, None))
        self._tasks |= {there, back}
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, onwards):
            with suppress(RuntimeError):
                one.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut_after: int | None
    ) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(self.piece):
                await self._open.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if cut_after is not None and passed + len(data) >= cut_after:
                    writer.write(data[: cut_after - passed])
                    await writer.drain()
                    return
                writer.write(data)
                await writer.drain()
                passed += len(data)
