"""MQTT receiver: messages of a broker into the journal, acknowledged once they are durable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from connectors.backoff import Backoff
from connectors.gather import Gather
from connectors.mqtt.config import MqttConfig, in_plant, subscriptions
from connectors.mqtt.publishes import HARD_CAP, Batch, warm_up
from connectors.mqtt.reaching import words
from connectors.mqtt.session import MqttSession
from connectors.mqtt.unacknowledged import IDS, Unacknowledged
from connectors.source import Appender, SourceStatus, Surroundings
from operators.batch import Int64, UInt64

WAITING_BYTES: Final = 32_000_000  # in hand and not yet durable, before reading pauses
STEADY_S: Final = 10.0  # a connection that held so long begins with the first back-off again
SUSPICIOUS: Final = 3  # connections in a row that were accepted and ended before that
FINISH_S: Final = 3.0  # of the 5 s in which a receiver ends

if TYPE_CHECKING:
    from connectors.mqtt.sparkplug.feed import Divided, Feed
    from connectors.mqtt.sparkplug.messages import Numbered

log = logging.getLogger(__name__)

# the session that messages came by, their packet ids and the marks of their content; deaths
# among Sparkplug's messages
_Token = tuple[MqttSession, Int64, UInt64, "Sequence[Numbered]"]
_NO_IDS: Final[Int64] = np.empty(0, np.int64)
_NO_MARKS: Final[UInt64] = np.empty(0, np.uint64)


class MqttReceiver:
    """One broker's subscriptions as a source.

    A message is acknowledged (PUBACK) only after the journal has it on disk, in the order of
    arrival, and only to the connection that brought it: after a lost connection, or the end of this
    process, the broker sends what was not acknowledged again, and what of that is in the journal
    already is acknowledged without a second entry. While the journal is behind, the socket is not
    read.
    """

    def __init__(self, name: str, config: MqttConfig, *, plant: str, data: Path | None = None) -> None:
        """data: the data directory, for what outlives this process; None: nothing does."""
        self.name = name
        self.config = config
        self.client_id = config.client_id or f"penstock-{plant}-{name}"
        self.status = SourceStatus()
        # by packet id: what was taken and may come again; outlives a connection
        self._held: UInt64 = np.zeros(IDS, np.uint64)
        self._kept = Unacknowledged(data and data / "mqtt" / f"{name}.unacknowledged")
        self._peer = f"{config.host}:{config.port}"
        self._session: MqttSession | None = None
        self._last_frame = time.monotonic()
        self._repeats = 0  # of connections that ended
        self._sessions_lost = 0  # by the broker
        self._short = 0  # connections in a row that were accepted and did not last
        self._folder = (data or Path()) / "mqtt"
        self._feed: Feed | None = None

    @classmethod
    def build(cls, name: str, config: MqttConfig, surroundings: Surroundings) -> MqttReceiver:
        """See `connectors.source.Receiver`."""
        config = in_plant(config, surroundings.folder)
        return cls(name, config, plant=surroundings.plant, data=surroundings.data)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`. Raises `ConfigError` for unusable TLS files or an unusable
        folder and `JournalError` when the journal is gone for good."""
        warm_up()
        if not await self._recover(appender, stop):
            return
        if self.config.sparkplug is not None:
            # only where it is asked for: it brings protobuf
            from connectors.mqtt.sparkplug.feed import Feed

            cap = min(self.config.max_payload, self.config.max_frame, HARD_CAP)
            self._feed = Feed(self.config.sparkplug, self._folder / f"{self.name}.sparkplug", cap)
        gather: Gather[_Token] = Gather(
            appender,
            self._acknowledge,
            self._press,
            max_frames=max(self.config.max_inflight * 2, 20_000),
            max_bytes=WAITING_BYTES,
        )
        self._gather = gather
        sender = asyncio.create_task(gather.run(), name=f"{self.name}-append")
        stopping = asyncio.create_task(stop.wait())
        backoff = Backoff()
        try:
            while not stop.is_set() and not sender.done():
                if gather.under_pressure:  # what a new connection brings would only wait as well
                    await asyncio.wait({stopping, sender}, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                    continue
                began = time.monotonic()
                await self._connection(sender, stopping)
                if time.monotonic() - began > STEADY_S:
                    backoff.reset()
                if not stop.is_set() and not sender.done():
                    self.status.reconnects += 1
                    await backoff.wait(stop)
        finally:
            stopping.cancel()
            if self._session is not None:
                gather.control("disconnected", {"source": self.name})
            whole = await gather.finish(sender, FINISH_S)
            if self._session is not None:
                await self._session.close()
                self._session = None
            if self._feed is not None:
                self._feed.close(whole)
            self.status.state = "stopped"
            if not whole:
                log.warning("stopped with %d frames not durable; none of them is acknowledged", gather.frames)
        if not sender.cancelled():
            sender.result()

    async def _recover(self, appender: Appender, stop: asyncio.Event) -> bool:
        """Learn what an earlier receiver left in the journal without acknowledging it; False when
        stopped while the journal was away."""
        recovering = asyncio.ensure_future(self._kept.recover(appender.appended))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({recovering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not recovering.done():
            recovering.cancel()
            self.status.state = "stopped"
            return False
        self._held[:] = recovering.result()
        return True

    async def _connection(self, sender: asyncio.Task[None], stopping: asyncio.Task[bool]) -> None:
        """One connection, from trying it to its end. When it is to be ended by us, it is left
        open in `self._session`, so that what is in hand can still be acknowledged."""
        status = self.status
        feed = self._feed
        state = feed.state() if feed is not None else None
        topics = [*subscriptions(self.config), *([state.topic] if state is not None else ())]
        session = MqttSession(
            self.config,
            self.client_id,
            self._held,
            self._accepted,
            self._receive,
            self._subscribed,
            topics,
            state,
        )
        connecting = asyncio.create_task(session.connect())
        first: list[asyncio.Future[Any]] = [connecting, stopping, sender]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            connecting.cancel()
            if self._session is None:
                session.abort()
            return
        try:
            connecting.result()
        except OSError as error:
            session.abort()
            self._session = None
            status.state, status.detail = "disconnected", f"{self._peer}: {words(error)}"
            log.warning("cannot connect to %s: %s", self._peer, words(error))
            return
        began = time.monotonic()
        while not session.lost.done():
            waited: list[asyncio.Future[Any]] = [session.lost, stopping, sender]
            await asyncio.wait(waited, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() or sender.done():
                session.pause(True)
                return
            session.tick()
            self._look(session)
        told = f"{self._peer}: {session.lost.result()}"
        self._short = self._short + 1 if time.monotonic() - began < STEADY_S else 0
        if self._short >= SUSPICIOUS:
            told += f"; {self._short} times in a row: does another client call itself {self.client_id}?"
        status.state, status.detail, status.peers = "disconnected", told, 0
        log.warning("%s", told)
        self._repeats += session.repeats
        self._session = None
        self._gather.control("disconnected", {"source": self.name})

    def _accepted(self, session: MqttSession, kept: bool) -> None:
        self._session = session
        if not kept:
            self._held[:] = 0
        lost = self._kept.begin(f"{self._peer} {self.client_id}", kept) and self.config.qos > 0
        if lost:
            self._sessions_lost += 1
            told = {"what": f"messages that {self._peer} held", "missing": None, "from": None, "to": None}
            self._gather.control("gap", {"source": self.name, **told})
            log.error("%s has lost the session of %s: what it held for us is lost, how much cannot be said",
                      self._peer, self.client_id)  # fmt: skip
        self._gather.control("connected", {"source": self.name})
        if self._feed is not None:
            self._feed.sparkplug.connected()
        session.pause(self._gather.under_pressure)
        said = "kept" if kept else "lost, a new one began" if lost else "new"
        self.status.peers = 1
        self.status.detail = f"{self._peer}, session {said}"
        self._last_frame = time.monotonic()
        log.info("connected to %s as %s (session %s)", self._peer, self.client_id, said)

    def _subscribed(self, session: MqttSession) -> None:
        """From here on the broker keeps for us what is published."""
        self.status.state = "connected"
        self._last_frame = time.monotonic()

    def _look(self, session: MqttSession) -> None:
        """Once a second: silence, and subscriptions that the broker refuses."""
        status = self.status
        if session.refused:
            status.detail = f"{self._peer} refuses the subscription {'; '.join(session.refused)}"
        if self._gather.frames:
            self._last_frame = time.monotonic()  # who waits for the journal is not silent
        if time.monotonic() - self._last_frame > self.config.silent_after / 1e9:
            if status.state == "connected":
                log.warning(
                    "%s: connected, but no message for %d s", self._peer, self.config.silent_after // 10**9
                )
            status.state = "silent"
        status.extra["waiting_frames"] = float(self._gather.frames)
        status.extra["repeats_total"] = float(self._repeats + session.repeats)
        status.extra["gaps_total"] = float(self._sessions_lost)
        status.extra["paused"] = float(self._gather.under_pressure)
        if self._feed is not None:
            self._put_parts(session, None, self._feed.tick(session))
            status.extra.update(self._feed.figures())

    def _receive(self, session: MqttSession, batch: Batch) -> None:
        status = self.status
        rows = batch.rows
        if rows is not None:
            status.frames += len(rows)
            status.bytes += len(rows.payload)
        status.last_frame_ms = int(time.time() * 1000)
        status.state = "connected"
        self._last_frame = time.monotonic()
        found = self._feed.divide(session, rows) if self._feed is not None and rows is not None else None
        if found is not None:
            self._put_parts(session, batch, found)
            return
        leaving = partial(self._leaving, batch, None, None) if len(batch.mids) else None
        self._gather.put_rows(rows, (session, batch.mids, batch.marks, ()), leaving)

    def _put_parts(self, session: MqttSession, batch: Batch | None, found: Divided) -> None:
        """A batch with messages of Sparkplug, or what time has led to. Acknowledged in the order of arrival:
        together, when all is durable."""
        none = (session, _NO_IDS, _NO_MARKS, ())
        told = partial(self._leaving, batch) if batch is not None and len(batch.mids) else None
        if found.others is not None:
            self._gather.put_rows(found.others, none, told and partial(told, found.rows, None))
        for part in found.parts:
            self._gather.put_rows(part.rows, none, told and partial(told, part.ends, part.unique))
        if batch is not None:
            self._gather.put_rows(None, (session, batch.mids, batch.marks, found.deaths))
        elif found.deaths:
            self._gather.put_rows(None, (session, _NO_IDS, _NO_MARKS, found.deaths))

    def _leaving(
        self,
        batch: Batch,
        part: Int64 | None,
        unique: Int64 | None,
        session: bytes,
        number: int,
        rows: Int64 | None,
    ) -> None:
        if part is not None:
            rows = part if rows is None else part[rows]
        mids, marks, of_row = batch.of(rows)
        alone = np.zeros(len(mids), np.bool_) if unique is None else np.isin(of_row, unique)
        self._kept.leaving(mids, marks, alone, session, number)

    def _acknowledge(self, tokens: Sequence[_Token]) -> None:
        if self._feed is not None:
            self._feed.durable([death for _, _, _, deaths in tokens for death in deaths])
        # a packet id means nothing to another connection than its own
        for session, mids, marks, _ in tokens:
            if session is self._session and len(mids):
                # from here on the broker may give the id to another message
                mine = self._held[mids] == marks
                self._held[self._kept.acknowledged(mids[mine], marks[mine])] = 0
                session.acknowledge(mids)

    def _press(self, pressed: bool) -> None:
        if pressed:
            log.warning("the journal is behind: reading from %s pauses", self._peer)
        else:
            log.info("the journal has caught up: reading from %s again", self._peer)
        if self._session is not None:
            self._session.pause(pressed)
