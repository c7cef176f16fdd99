"""Kafka receiver: messages of topics into the journal, each exactly once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from connectors.backoff import Backoff
from connectors.errors import ConfigError, ConnectError
from connectors.kafka.assignment import Gap
from connectors.kafka.call_thread import CallThread
from connectors.kafka.client import client_config
from connectors.kafka.config import KafkaConfig, start_ms
from connectors.kafka.fetching import Chunk, Fetching, Handed
from connectors.kafka.progress import Progress
from connectors.kafka.watch import Look, Watch, quiet
from connectors.source import Appender, SourceStatus, Surroundings
from connectors.tls import in_folder

LONGEST_BACKOFF_S: Final = 5.0  # brokers that come back are read again within 10 s
LOOK_S: Final = 1.0  # between two looks at the brokers
AT_ONCE: Final = 16  # appends that go out together, and become one commit
FINISH_S: Final = 3.0  # of the 5 s in which a receiver ends
SHOWN: Final = 3  # topics and partitions that cannot be read, by name

log = logging.getLogger(__name__)


class KafkaReceiver:
    """Some topics as a source.

    How far it has read is kept beside the journal, and named by the appends themselves, so that every
    message is in the journal once, whenever this process, the journal's or the brokers' is killed. The
    group's offsets at the brokers follow what is durable; they are for people and decide nothing.
    """

    def __init__(self, name: str, config: KafkaConfig, surroundings: Surroundings) -> None:
        self.name = name
        self.config = config
        self.status = SourceStatus()
        self._file = surroundings.data / "kafka" / f"{name}.jsonl"
        folder = surroundings.folder
        found = {key: in_folder(folder, getattr(config, key)) for key in ("ca_file", "cert_file", "key_file")}
        self._settings = quiet(client_config(msgspec.structs.replace(config, **found), f"penstock-{name}"))
        self._settings["group.id"] = config.group or f"penstock-{surroundings.plant}-{name}"
        if config.start not in ("earliest", "latest"):
            try:
                start_ms(config.start)
            except ValueError as error:
                raise ConfigError(f"source {name}: start: '{config.start}' is no time") from error
        self._queue: deque[Handed] = deque()
        self._controls: deque[str] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._seen: Look | None = None
        self._up = False
        self._last_frame = time.monotonic()
        self._gaps = self._lost = 0

    @classmethod
    def build(cls, name: str, config: KafkaConfig, surroundings: Surroundings) -> KafkaReceiver:
        """See `connectors.source.Receiver`."""
        return cls(name, config, surroundings)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`. Raises `ConfigError` for unusable TLS files or a progress file
        that cannot be read, and `JournalError` when the journal is gone for good."""
        loop = asyncio.get_running_loop()
        self._progress = Progress(self._file)
        where = f"sources.{self.name}"
        watch = Watch(_without_group(self._settings), self.config, where)
        broken: asyncio.Future[None] = loop.create_future()

        def hand(handed: Sequence[Handed]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._take, handed)

        def failed(error: BaseException) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_break, broken, error)

        self._fetching = fetching = Fetching(
            self.config, self._settings, self._progress, watch, where=where, hand=hand, failed=failed
        )
        fetching.start()
        sender = asyncio.create_task(self._append_all(appender), name=f"{self.name}-append")
        looking = asyncio.create_task(self._look_for_ever(watch), name=f"{self.name}-look")
        stopping = asyncio.create_task(stop.wait())
        try:
            waited: list[asyncio.Future[Any]] = [stopping, sender, looking, broken]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end(fetching, sender, looking, stopping)
        for task in (sender, looking, broken):
            if task.done() and not task.cancelled():
                task.result()

    async def _end(
        self,
        fetching: Fetching,
        sender: asyncio.Task[None],
        looking: asyncio.Task[None],
        stopping: asyncio.Task[bool],
    ) -> None:
        began = time.monotonic()
        stopping.cancel()
        looking.cancel()
        fetching.end()
        if self._up:
            self._controls.append("disconnected")
        self._closing = True
        self._wake.set()
        await asyncio.wait({sender}, timeout=FINISH_S)
        if not sender.done():
            sender.cancel()
            await asyncio.wait({sender})
            log.warning(
                "stopped with %d appends not durable; they are made again at the start", len(self._queue)
            )
        fetching.finish()
        left = max(0.2, FINISH_S + 1.0 - (time.monotonic() - began))
        await asyncio.to_thread(fetching.join, left)  # closing waits for brokers that do not answer
        with suppress(asyncio.CancelledError, Exception):
            await looking
        if not fetching.is_alive():
            self._progress.save()
            self._progress.close()
        self.status.state = "stopped"

    # -- into the journal

    def _take(self, handed: Sequence[Handed]) -> None:
        self._queue.extend(handed)
        self._wake.set()

    async def _append_all(self, appender: Appender) -> None:
        """Append until told to close. Raises `JournalError` when the journal is gone for good."""
        while True:
            if self._controls:
                await appender.control(self._controls[0], {"source": self.name})
                self._controls.popleft()
            elif self._queue and isinstance(self._queue[0], Gap):
                await self._tell_gap(appender, self._queue[0])
                self._queue.popleft()
            elif self._queue:
                await self._append(appender)
            elif self._closing:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _append(self, appender: Appender) -> None:
        chunks: list[Chunk] = []
        for one in self._queue:
            if isinstance(one, Gap) or len(chunks) == AT_ONCE:
                break
            chunks.append(one)
        await asyncio.gather(
            *(appender.append_rows(one.rows, one.key) for one in chunks if one.rows is not None)
        )
        for _ in chunks:
            self._queue.popleft()
        self._progress.done(one.number for one in chunks if one.ends)
        rows = [one.rows for one in chunks if one.rows is not None]
        size = sum(len(one.payload) for one in rows)
        self._fetching.settled(size)
        status = self.status
        status.frames += sum(map(len, rows))
        status.bytes += size
        status.last_frame_ms = int(time.time() * 1000)
        self._last_frame = time.monotonic()
        if status.state == "silent":
            status.state = "connected"

    async def _tell_gap(self, appender: Appender, gap: Gap) -> None:
        place = f"{gap.topic}, partition {gap.partition}"
        end = gap.first + gap.lost - 1
        told: dict[str, object] = {
            "source": self.name,
            "what": f"messages of {place}",
            "missing": gap.lost if gap.lost >= 0 else None,
            "from": gap.first,
            "to": end if gap.lost >= 0 else None,
        }
        await appender.control("gap", told)
        self._gaps += 1
        self._lost += max(0, gap.lost)
        if gap.lost < 0:
            log.error("%s: it is another one than was read up to offset %d; how much was lost cannot be said",
                      place, gap.first)  # fmt: skip
        else:
            log.error("%s: offsets %d to %d were deleted before they were read: up to %d messages are lost",
                      place, gap.first, end, gap.lost)  # fmt: skip

    # -- what is told

    async def _look_for_ever(self, watch: Watch) -> None:
        """Ask the brokers again and again; whether they answer is what connected means."""
        backoff = Backoff(limit_s=LONGEST_BACKOFF_S)
        asking = CallThread(f"{self.name}-looking")  # a look that takes long holds up no end
        while True:
            began = time.monotonic()
            self._fetching.down.clear()
            try:
                look = await asking.call(watch.look)
            except ConnectError as error:
                self._told_away(error)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._told_there(look)
            await asking.call(self._fetching.tell_group)
            while time.monotonic() - began < LOOK_S and not self._fetching.down.is_set():
                await asyncio.sleep(0.05)

    def _told_away(self, error: ConnectError) -> None:
        said = f"{self.config.bootstrap}: {error}"
        status = self.status
        if status.detail != said:
            log.warning("%s", said)
        self._fetching.take(None)
        if self._up:
            status.reconnects += 1
            self._change(False)
        status.state, status.detail, status.peers = "disconnected", said, 0

    def _told_there(self, look: Look) -> None:
        self._seen = look
        self._fetching.take(look)
        status = self.status
        lag = self._fetching.lag(look)
        there = sum(map(len, look.partitions.values()))
        status.extra.update(
            kafka_lag=float(sum(lag.values())),
            kafka_lag_largest=float(max(lag.values(), default=0)),
            kafka_partitions=float(there),
            gaps_total=float(self._gaps),
            lost_total=float(self._lost),
            headers_cut_total=float(self._fetching.cut),
            paused=float(self._fetching.paused),
            waiting_appends=float(len(self._queue)),
        )
        troubles = self._troubles(look)
        detail = f"{self.config.bootstrap}, {len(look.partitions)} topics, {there} partitions"
        if self._lost or self._gaps:
            detail += f"; up to {self._lost} messages were deleted before they were read"
        if troubles:
            shown = "; ".join(troubles[:SHOWN])
            more = f" and {len(troubles) - SHOWN} more" if len(troubles) > SHOWN else ""
            detail += f"; {shown}{more}"
        up = bool(look.partitions)
        if up and not self._up:
            self._last_frame = time.monotonic()
            log.info("connected to %s", detail)
            self._change(True)
        elif not up and (self._up or status.detail != detail):
            log.warning("%s", detail)
            if self._up:
                self._change(False)
        if not up:
            status.state, status.detail, status.peers = "disconnected", detail, 0
            return
        if self._queue:
            self._last_frame = time.monotonic()  # who waits for the journal is not silent
        quiet = time.monotonic() - self._last_frame > self.config.silent_after / 1e9
        if quiet and status.state == "connected":
            log.warning("%s: connected, but no message for %d s",
                        self.config.bootstrap, self.config.silent_after // 10**9)  # fmt: skip
        status.state = "silent" if quiet else "connected"
        status.detail, status.peers = detail, 1

    def _troubles(self, look: Look) -> list[str]:
        found = [f"the topic {name} is not there" for name in sorted(look.absent)]
        found += [f"{name}: {why}" for name, why in sorted(look.refused.items())]
        stuck = sorted(dict(self._fetching.trouble).items())  # another thread's
        return found + [f"{part.topic}, partition {part.partition}: {why}" for part, why in stuck]

    def _change(self, up: bool) -> None:
        self._up = up
        self._controls.append("connected" if up else "disconnected")
        self._wake.set()


def _break(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _without_group(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "group.id"}
