"""HTTP receiver: a server that devices and programs post frames to.

Granian does HTTP, in threads of its own, and calls `__rsgi__` in this event loop, once a request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]  # imported there, not listed

from connectors.errors import JournalError
from connectors.gather import Gather
from connectors.http.bodies import Batch, Refused, split, unpack
from connectors.http.config import HttpConfig
from connectors.http.heads import Heads
from connectors.http.listening import Listening
from connectors.journal.entries import ENTRY_BYTES, ENTRY_ROWS
from connectors.serving import Serving
from connectors.source import Appender, Frame, FrameRows, SourceStatus, Surroundings, Where

WAITING_FRAMES: Final = 200_000  # received and not yet durable, before requests are put off
WAITING_BYTES: Final = 64_000_000  # bodies in hand, all requests together
BUSY_FRAMES: Final = 8  # each is a request that waits, so there are never many more than connections
AT_ONCE: Final = 256  # frames of a request that go into an append of their own
BUSY_RETRY_S: Final = 1
AWAY_RETRY_S: Final = 5
FINISH_S: Final = 3.0  # of the 5 s in which a receiver ends
SWEEP_S: Final = 0.25
DRAIN_S: Final = 1.0
LARGEST_INLINE: Final = 65_536  # a body beyond is unpacked and split beside the event loop

log = logging.getLogger(__name__)

JSON: Final = ("content-type", "application/json")


class HttpReceiver:
    """An HTTP server as a source: `POST /ingest/{address}`.

    topic of a frame: the address; its port: `?port=N`; its headers: those that the configuration
    names. 200 `{"accepted": N}` only when all N frames are in the journal on disk; any other answer
    has `{"error": ...}`, and nothing of the request was taken, except after 503, which may be sent
    again under an `Idempotency-Key`.
    """

    def __init__(self, name: str, config: HttpConfig, folder: Path = Path()) -> None:
        self.name = name
        self.config = config
        self.status = SourceStatus()
        self._listening = Listening(name, config, folder)
        self._heads = Heads(name, config)
        self._unpacking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: dict[asyncio.Task[Any] | None, float] = {}  # requests whose body comes, since when
        self._pending: dict[asyncio.Future[Any], float] = {}  # what requests wait for, since when
        self._in_hand = 0  # bytes of bodies, from the head of a request to its answer
        self._direct_frames = 0
        self._requests = 0
        self._open = False
        self._gone = asyncio.Event()  # the journal
        self.last_frame = time.monotonic()
        self.gather: Gather[asyncio.Future[None] | None]
        self.appender: Appender

    @property
    def port(self) -> int:
        """The one that it listens on; 0: on none yet."""
        return self._listening.port

    @classmethod
    def build(cls, name: str, config: HttpConfig, surroundings: Surroundings) -> HttpReceiver:
        """See `connectors.source.Receiver`."""
        return cls(name, config, surroundings.folder)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`. Raises `ConfigError` for an address that can never be
        listened on or TLS files that are none, and `JournalError` when the journal is gone."""
        self.appender = appender
        self.gather = Gather(
            appender,
            self._durable,
            lambda pressed: None,
            max_frames=WAITING_FRAMES,
            max_bytes=WAITING_BYTES,
            busy_frames=BUSY_FRAMES,
        )
        server = await self._listening.server(self, stop, self.status)
        if server is None:
            self.status.state = "stopped"
            return
        sender = asyncio.create_task(self.gather.run(), name=f"{self.name}-append")
        ends = {asyncio.create_task(stop.wait()), asyncio.create_task(self._gone.wait())}
        self._open = True
        serving = Serving(server, self._listening.host, self.port)
        over = {sender, serving.task, *ends}
        try:
            if await serving.accepts({sender, *ends}):
                self._connected()
            while not any(one.done() for one in over):
                await asyncio.wait(over, timeout=SWEEP_S, return_when=asyncio.FIRST_COMPLETED)
                self._sweep()
        finally:
            self._open = False
            for end in ends:
                end.cancel()
            self.gather.control("disconnected", {"source": self.name})
            until = time.monotonic() + FINISH_S
            whole = await self.gather.finish(sender, FINISH_S)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=max(0.0, until - time.monotonic()))
            whole = whole and not self._tasks
            for waiting in (*self._tasks, *self._pending):
                waiting.cancel()
            deadline = time.monotonic() + 0.5
            while self._requests and time.monotonic() < deadline:
                await asyncio.sleep(0.01)  # their answers leave before the server goes
            await serving.stop(1.0)
            if serving.task.done():
                serving.task.result()  # raises what ended it
            self.status.state = "stopped"
            if not whole:
                log.warning("stopped with frames that are not durable; none is acknowledged")
        if not sender.cancelled():
            sender.result()
        if self._gone.is_set():
            raise JournalError("the journal is gone")

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        """One request, by Granian's RSGI 1.5."""
        self._requests += 1
        headers = [JSON]
        try:
            status, text = 200, await self._answer(scope, proto)
        except Refused as refused:
            status, text = refused.status, json.dumps({"error": refused.why})
            self._refuse(refused, scope.client)
            if refused.retry_s is not None:
                headers.append(("retry-after", str(refused.retry_s)))
            if status == 401:
                headers.append(("www-authenticate", "Bearer"))
            elif status == 405:
                headers.append(("allow", "POST"))
            if status != 408 and "expect" not in scope.headers:
                await _drain(proto)
            if not self._open or status in (401, 408, 413):  # there may be more of the body
                headers.append(("connection", "close"))
        except (ProtocolClosed, ProtocolError):
            return  # nobody waits for an answer
        except Exception:
            log.exception("a request of %s failed", scope.client)
            status, text = 500, '{"error": "internal error; see the log"}'
        finally:
            self._requests -= 1
        with suppress(ProtocolClosed, ProtocolError):
            proto.response_str(status, headers, text)

    async def _answer(self, scope: Any, proto: Any) -> str:
        headers = scope.headers
        if not self._open:
            raise Refused(503, "the source is stopping", AWAY_RETRY_S)
        topic, port = self._heads.address(scope)
        if self.gather.under_pressure or self._direct_frames >= WAITING_FRAMES:
            raise Refused(429, "the journal is behind; send again later", BUSY_RETRY_S)
        held = 0
        try:
            held, body = await self._read(headers, proto)
            encoding = headers.get("content-encoding", "")
            if encoding or len(body) > LARGEST_INLINE:
                async with self._unpacking:
                    batch = await asyncio.to_thread(self._batch, body, encoding, headers)
            else:
                batch = self._batch(body, encoding, headers)
            where = (topic, port, self._heads.headers(scope, batch.csv))
            key = headers.get("idempotency-key")
            name = None if key is None else self._heads.append_name(key, where, body)
            size = len(body)
            del body  # the payloads are copies, and may wait for long
            await self._commit(where, batch.payloads, name)
        finally:
            self._in_hand -= held
        self.status.bytes += size
        return '{"accepted": %d}' % len(batch.payloads)  # noqa: UP031 - braces

    async def _read(self, headers: Any, proto: Any) -> tuple[int, bytes]:
        """The body, and how many bytes of it are counted as in hand."""
        most = self.config.max_body
        told = headers.get("content-length")
        chunked = headers.get("transfer-encoding") is not None
        size = int(told) if told is not None and told.isascii() and told.isdigit() else 0
        held = 0
        request = asyncio.current_task()
        self._reading[request] = time.monotonic()
        try:
            if size > most:
                raise Refused(413, f"the body has more than {most} bytes")
            if not chunked and size <= LARGEST_INLINE:
                self._take(size)
                held = size
                try:
                    return held, await proto()
                except (ProtocolClosed, ProtocolError):
                    raise Refused(400, "the body is cut short") from None
            parts: list[bytes] = []
            empty = 0
            async for part in proto:
                if held + len(part) > most:
                    raise Refused(413, f"the body has more than {most} bytes")
                self._take(len(part))
                held += len(part)
                empty += not part
                parts.append(part)
            # every body ends with one empty part; a second one stands for bytes that are none, or trailers
            if empty > 1 or held < size:
                raise Refused(400, "the body is cut short, or has trailers")
            return held, b"".join(parts)
        except asyncio.CancelledError:
            self._in_hand -= held
            if request in self._reading:
                raise
            seconds = self.config.body_timeout / 1e9
            raise Refused(408, f"no end of the body within {seconds:g} s") from None
        except BaseException:
            self._in_hand -= held
            raise
        finally:
            self._reading.pop(request, None)

    def _take(self, size: int) -> None:
        if self._in_hand and self._in_hand + size > WAITING_BYTES:
            raise Refused(429, "too many bodies are in hand; send again later", BUSY_RETRY_S)
        self._in_hand += size

    def _batch(self, body: bytes, encoding: str, headers: Any) -> Batch:
        config = self.config
        return split(
            unpack(body, encoding, config.max_body) if encoding else body,
            headers.get("content-type", ""),
            arrays=config.arrays == "split",
            max_frame=config.max_frame,
            max_batch=config.max_batch,
        )

    async def _commit(self, where: Where, payloads: list[bytes], name: str | None) -> None:
        """Return when every frame is durable."""
        if not payloads:
            return
        if name is None and len(payloads) <= AT_ONCE:
            topic, port, head = where
            frames = [Frame(topic, payload, 0, port, head) for payload in payloads]
            done = asyncio.get_running_loop().create_future()
            for frame in frames[:-1]:
                self.gather.put(frame, None)
            self.gather.put(frames[-1], done)
        else:
            done = self._append(_columns(where, payloads), name)
        self._pending[done] = time.monotonic()
        try:
            await done
        except (JournalError, asyncio.CancelledError) as error:
            if done not in self._pending:
                why = "not yet durable; send again, with an Idempotency-Key"
                raise Refused(503, why, AWAY_RETRY_S) from None
            if isinstance(error, JournalError):
                self._gone.set()
            raise Refused(503, "the journal is away", AWAY_RETRY_S) from error
        finally:
            self._pending.pop(done, None)
        status = self.status
        status.frames += len(payloads)
        status.last_frame_ms = int(time.time() * 1000)
        status.state = "connected"
        self.last_frame = time.monotonic()

    def _append(self, runs: list[FrameRows], name: str | None) -> asyncio.Future[Any]:
        """An append of its own, which goes on when its request has been given up: that ends what is
        returned, not the append."""
        frames = sum(map(len, runs))
        task = asyncio.create_task(self._append_all(runs, name))
        done = asyncio.shield(task)
        self._tasks.add(task)
        self._direct_frames += frames

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._direct_frames -= frames
            if not task.cancelled():
                task.exception()  # told to the request, if it is still there

        task.add_done_callback(over)
        return done

    async def _append_all(self, runs: list[FrameRows], name: str | None) -> None:
        """One after the other, so that what a restart leaves is the beginning of a batch."""
        for number, rows in enumerate(runs):
            await self.appender.append_rows(rows, None if name is None else f"{name}/{number}")

    def _durable(self, tokens: Sequence[asyncio.Future[None] | None]) -> None:
        for done in tokens:
            if done is not None and not done.done():
                done.set_result(None)

    def _refuse(self, refused: Refused, peer: str) -> None:
        self.status.refused += 1
        if self.status.refused < 100 or self.status.refused % 1000 == 0:
            log.warning(
                "%s: %d, %s (refused so far: %d)", peer, refused.status, refused.why, self.status.refused
            )

    def _connected(self) -> None:
        self.status.state = "connected"
        at = f"{self._listening.host or '*'}:{self.port}"
        self.status.detail = f"listening on {at}"
        self.last_frame = time.monotonic()
        log.info("listening on %s", at)
        self.gather.control("connected", {"source": self.name})

    def _sweep(self) -> None:
        """Requests that took too long, silence. One look at all costs less than a timer for each."""
        _give_up(self._reading, self.config.body_timeout)
        _give_up(self._pending, self.config.commit_timeout)
        status = self.status
        if self._pending or self.gather.under_pressure:
            self.last_frame = time.monotonic()  # who waits for the journal is not silent
            status.state = "connected"
        if (
            time.monotonic() - self.last_frame > self.config.silent_after / 1e9
            and status.state == "connected"
        ):
            log.warning("no frame from any peer for %d s", self.config.silent_after // 10**9)
            status.state = "silent"
        status.extra["requests"] = float(self._requests)
        status.extra["waiting_frames"] = float(self.gather.frames + self._direct_frames)
        status.extra["paused"] = float(self.gather.under_pressure)


def _give_up(found: dict[Any, float], limit_ns: int) -> None:
    """Cancel what has waited for too long; the oldest stand first."""
    now = time.monotonic()
    while found and now - next(iter(found.values())) > limit_ns / 1e9:
        late = next(iter(found))
        del found[late]
        late.cancel()


async def _drain(proto: Any) -> None:
    """Throw the rest of a body away, for a while: a client that still writes would be cut off and never
    see the answer."""
    with suppress(TimeoutError, ProtocolClosed, ProtocolError):
        async with asyncio.timeout(DRAIN_S):
            async for _ in proto:
                pass


def _columns(where: Where, payloads: list[bytes]) -> list[FrameRows]:
    """Payloads of one address in runs that each fit an entry of the journal."""
    sizes = np.fromiter(map(len, payloads), np.uint32, len(payloads))
    ends = np.cumsum(sizes, dtype=np.int64)
    runs: list[FrameRows] = []
    start = 0
    while start < len(payloads):
        before = int(ends[start - 1]) if start else 0
        fits = int(np.searchsorted(ends, before + ENTRY_BYTES, "right"))
        stop = min(max(fits, start + 1), start + ENTRY_ROWS, len(payloads))
        count = stop - start
        runs.append(
            FrameRows(
                payload=b"".join(payloads[start:stop]),
                lengths=sizes[start:stop],
                where=np.zeros(count, np.uint32),
                flags=np.zeros(count, np.uint8),
                addresses=[where],
            )
        )
        start = stop
    return runs
