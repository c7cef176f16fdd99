"""OPC UA receiver: data changes of a server into the journal, acknowledged once they are durable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.uaerrors import UaError

from connectors.backoff import Backoff
from connectors.errors import ConfigError, ConnectError
from connectors.opcua.browse import browse_nodes, node_id
from connectors.opcua.changes import Changes, Published, Told, UnreadableError
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.enumerations import Enumerations
from connectors.opcua.held import Held, HeldFile
from connectors.opcua.nodes import Item, read_nodes
from connectors.opcua.properties import read_properties
from connectors.opcua.security import Identity, connect, quiet
from connectors.opcua.session import Subscription
from connectors.source import Appender, Frame, SourceStatus, Surroundings

STEADY_S: Final = 10.0  # a connection that held so long begins with the first back-off again
LONGEST_BACKOFF_S: Final = 5.0  # a server that comes back is read again within 10 s
SESSION_MS: Final = 60_000
MOST_BYTES: Final = 16 << 20  # of one answer of a server, which makes several of more
SHOWN: Final = 3  # nodes that are not there, by name
HEAD: Final = 4096  # bytes kept of a response that cannot be read
CLOSE_S: Final = 1.0

log = logging.getLogger(__name__)


class OpcuaReceiver:
    """One server's nodes as a source.

    A frame is what one device told in one publish response (`connectors.typed`), its topic the
    device. A response is acknowledged to the server only after the journal has its frames; while
    the journal is behind, nothing is asked for, and the server's queues fill.
    """

    def __init__(self, name: str, config: OpcuaConfig, surroundings: Surroundings) -> None:
        self.name = name
        self.config = config
        self.status = SourceStatus()
        self.kept = True  # by the server, what this source asked for, when it ends
        self._folder = surroundings.folder
        self._identity = Identity(name, config, surroundings)
        self._items: list[Item] | None = None
        if config.nodes is not None:
            self._items = read_nodes(_file(config.nodes, surroundings), config.nodes)
        elif config.browse is None:
            raise ConfigError(f"source {name}: 'nodes' or 'browse' says what is read")
        self._up: set[int] = set()
        self._sessions = 1
        self._missing: dict[int, dict[str, str]] = {}
        self._failed: dict[int, str] = {}
        self._held: dict[int, Held] = {}
        self._kept = surroundings.data / "opcua" / name
        self._revised: dict[int, int] = {}
        self._waiting = 0  # responses on their way into the journal
        self._last_frame = time.monotonic()
        self._gaps = self._overflows = self._values = self._unreadable = self._too_large = 0

    @classmethod
    def build(cls, name: str, config: OpcuaConfig, surroundings: Surroundings) -> OpcuaReceiver:
        """See `connectors.source.Receiver`."""
        return cls(name, config, surroundings)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`. Raises `JournalError` when the journal is gone for good."""
        quiet()
        self._appender = appender
        await self._identity.prepare()
        looking = asyncio.create_task(self._look())
        tasks: list[asyncio.Task[None]] = []
        try:
            parts = await self._parts(stop)
            self._sessions = max(1, len(parts))
            tasks = [
                asyncio.create_task(self._session(number, items, stop), name=f"{self.name}-{number}")
                for number, items in enumerate(parts)
            ]
            await asyncio.gather(*tasks)
        finally:
            looking.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.status.state = "stopped"

    async def _parts(self, stop: asyncio.Event) -> list[list[Item]]:
        """The items of each session; a server that is to be browsed is waited for."""
        backoff = Backoff(limit_s=LONGEST_BACKOFF_S)
        while self._items is None and not stop.is_set():
            try:
                client = await self._connected()
                try:
                    assert self.config.browse is not None
                    namespaces = await client.get_namespace_array()
                    found = await browse_nodes(client, self.config.browse, namespaces)
                finally:
                    await _closed(client, kept=False)
            except _TROUBLE as error:
                self._told_away(0, error)
            else:
                if found:
                    self._items = found
                    log.info("browsing found %d nodes", len(found))
                    break
                self._told_away(0, ConnectError("browsing finds no variable that 'include' takes"))
            await backoff.wait(stop)
        items, most = self._items or [], max(1, self.config.nodes_per_session)
        return [items[first : first + most] for first in range(0, len(items), most)]

    async def _connected(self) -> Client:
        config = self.config
        timeout_s = config.timeout / 1e9
        # its probe's interval is also the probe's time-out
        client = Client(config.endpoint, timeout=timeout_s, watchdog_intervall=1.5 * timeout_s)
        client.session_timeout = (
            SESSION_MS  # one that a killed process left does not stand in the way for long
        )
        client.max_messagesize = MOST_BYTES
        client.name = client.description = f"penstock {self.name}"
        client.application_uri = self._identity.uri
        await connect(client, config, self._identity)
        return client

    async def _session(self, number: int, items: Sequence[Item], stop: asyncio.Event) -> None:
        """One session for good: connected again whenever it is lost."""
        changes = Changes(items, self.config.max_frame)
        backoff = Backoff(limit_s=LONGEST_BACKOFF_S)
        while not stop.is_set():
            began = time.monotonic()
            client: Client | None = None
            try:
                client = await self._connected()
                await self._subscribed(number, client, changes, stop)
            except _TROUBLE as error:
                self._told_away(number, error)
            finally:
                self._missing.pop(number, None)
                if number in self._up:
                    if len(self._up) == self._sessions:
                        await self._tell_journal("disconnected", stop)
                    self._up.discard(number)
                if client is not None:
                    await _closed(client, self.kept)
            if time.monotonic() - began > STEADY_S:
                backoff.reset()
            if not stop.is_set():
                self.status.reconnects += 1
                await backoff.wait(stop)

    async def _tell_journal(self, kind: str, stop: asyncio.Event) -> None:
        """`connected` or `disconnected`; a journal that is full does not hold the end up."""
        telling = self._appender.control(kind, {"source": self.name})
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(telling, CLOSE_S if stop.is_set() else None)

    async def _subscribed(self, number: int, client: Client, changes: Changes, stop: asyncio.Event) -> None:
        file = HeldFile(self._kept / f"session-{number}.json")
        subscription = Subscription(client, self.config, changes.items, file)
        await subscription.create(self._held.get(number))
        if self.config.enumerations == "texts":
            changes.enumerations = await _enumerations(client, changes.items)
        if subscription.resumed and not subscription.taken_over:
            self._gaps += 1
            log.warning(
                "the server does not have the last subscription any more: what changed meanwhile is lost"
            )
        self._up.add(number)
        self._failed.pop(number, None)
        if len(self._up) == self._sessions:
            await self._tell_journal("connected", stop)
        self.status.peers = len(self._up)
        self._last_frame = time.monotonic()
        self._tell(number, subscription)
        log.info("connected to %s, %d nodes%s", self.config.endpoint, len(changes.items),
                 ", where the last session ended" if subscription.taken_over else "")  # fmt: skip
        unread = False

        async def take(published: Published | bytes, lost: bool, why: str, name: str) -> None:
            nonlocal unread
            told = self._told(changes, published, lost or unread, why)
            unread = told.values < 0
            if told.gone:
                subscription.absent(told.gone)
                self._tell(number, subscription)
            if told.frames:
                self._waiting += 1
                try:
                    await self._appender.append(told.frames, name or None)
                finally:
                    self._waiting -= 1
            self._gaps += lost
            self._overflows += told.overflows
            self._too_large += told.too_large
            self._values += max(0, told.values)
            self.status.frames += len(told.frames)
            self.status.bytes += sum(len(frame.payload) for frame in told.frames)
            self.status.last_frame_ms = int(time.time() * 1000)
            self._last_frame = time.monotonic()
            if self.status.state == "silent":
                self.status.state = "connected"

        retrying = asyncio.create_task(self._retry(number, subscription))
        try:
            await subscription.publish(take, stop)
        finally:
            if subscription.held is None:
                self._held.pop(number, None)
            else:
                self._held[number] = subscription.held
            retrying.cancel()
            with suppress(asyncio.CancelledError, *_TROUBLE):
                await retrying

    def _told(self, changes: Changes, published: Published | bytes, lost: bool, why: str) -> Told:
        if isinstance(published, Published):
            try:
                return changes.frames(published, after_gap=lost)
            except UnreadableError as error:
                why, published = str(error), published.body
        self._unreadable += 1
        log.warning("a publish response cannot be read: %s", why)
        return Told([Frame(self.name, published[:HEAD], headers=(("resync", why),))], -1, 0, {})

    async def _retry(self, number: int, subscription: Subscription) -> None:
        """Nodes that the server does not have are asked for again; a namespace may have come."""
        while True:
            await asyncio.sleep(self.config.retry / 1e9)
            with suppress(UaError):  # a server that is busy is asked the next time
                await subscription.look()
                await subscription.again()
            self._tell(number, subscription)

    def _tell(self, number: int, subscription: Subscription) -> None:
        self._missing[number] = {
            subscription.items[item].node: why for item, why in subscription.missing.items()
        }
        revised = subscription.slower.keys() | subscription.shorter.keys()
        if len(revised) > self._revised.get(number, 0):
            log.warning(revised_text(subscription))
        self._revised[number] = len(revised)

    def _told_away(self, number: int, error: BaseException) -> None:
        said = _said(error)
        if self._failed.get(number) != said:
            log.warning("%s: %s", self.config.endpoint, said)
        self._failed[number] = said
        self.status.state, self.status.detail = "disconnected", f"{self.config.endpoint}: {said}"
        self.status.peers = len(self._up)

    async def _look(self) -> None:
        """Once a second: what the status tells."""
        while True:
            await asyncio.sleep(1.0)
            status = self.status
            missing = {node: why for one in self._missing.values() for node, why in one.items()}
            status.peers = len(self._up)
            status.extra.update(
                nodes=float(len(self._items or ())), missing_nodes=float(len(missing)),
                values_total=float(self._values), gaps_total=float(self._gaps),
                overflows_total=float(self._overflows), unreadable_total=float(self._unreadable),
                too_large_total=float(self._too_large), revised_nodes=float(sum(self._revised.values())),
            )  # fmt: skip
            if len(self._up) < self._sessions:
                continue
            if self._waiting:
                self._last_frame = time.monotonic()  # who waits for the journal is not silent
            quiet = time.monotonic() - self._last_frame > self.config.silent_after / 1e9
            if quiet and status.state == "connected":
                log.warning("%s: connected, but no value for %d s", self.config.endpoint,
                            self.config.silent_after // 10**9)  # fmt: skip
            status.state = "silent" if quiet else "connected"
            status.detail = f"{self.config.endpoint}, {len(self._items or ()) - len(missing)} nodes"
            if missing:
                shown = ", ".join(f"{node} ({why})" for node, why in list(missing.items())[:SHOWN])
                more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
                status.detail += f"; not there: {shown}{more}"


_TROUBLE: Final = (OSError, UaError, ConnectError, asyncio.TimeoutError)


def _file(name: str, surroundings: Surroundings) -> str:
    """A file of the applied plant; in a dataflow of one's own, of the folder."""
    if name in surroundings.files:
        return surroundings.files[name]
    path = surroundings.folder / name
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


async def _enumerations(client: Client, items: Sequence[Item]) -> Enumerations:
    namespaces = await client.get_namespace_array()
    nodes = [node_id(item.node, namespaces) for item in items]
    there = [number for number, node in enumerate(nodes) if node is not None]
    said = await read_properties(client, [nodes[number] for number in there])
    return Enumerations({number: one.texts for number, one in zip(there, said, strict=True) if one.texts})


def revised_text(subscription: Subscription) -> str:
    """What the server grants instead of what was asked for."""
    told = []
    for what, granted, unit in (
        ("samples more slowly than asked for", subscription.slower, " ms"),
        ("keeps fewer values than asked for", subscription.shorter, ""),
    ):
        if granted:
            item, value = next(iter(granted.items()))
            told.append(
                f"{what}: {len(granted)} nodes, e.g. {subscription.items[item].node}: {value:g}{unit}"
            )
    return f"the server {'; it '.join(told)}; values between are lost without a word"


def _said(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer"
    if isinstance(error, ua.uaerrors.UaStatusCodeError):
        return f"the server refuses: {ua.StatusCode(error.code).name}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__


async def _closed(client: Client, kept: bool) -> None:
    """The session's end. kept: its subscription stays at the server, for the next."""
    with suppress(Exception):
        await asyncio.wait_for(client.uaclient.close_session(not kept), CLOSE_S)
    with suppress(Exception):
        await asyncio.wait_for(client.disconnect(), CLOSE_S)
