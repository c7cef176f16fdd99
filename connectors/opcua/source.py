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
from connectors.opcua.browse import browse_nodes
from connectors.opcua.changes import Changes, Published, Told, UnreadableError
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.nodes import Item, read_nodes
from connectors.opcua.security import Identity, secure
from connectors.opcua.session import WATCHDOG_S, Subscription
from connectors.source import Appender, Frame, SourceStatus, Surroundings

STEADY_S: Final = 10.0  # a connection that held so long begins with the first back-off again
LONGEST_BACKOFF_S: Final = 5.0  # a server that comes back is read again within 10 s
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
        self._last_frame = time.monotonic()
        self._gaps = self._overflows = self._values = self._unreadable = 0

    @classmethod
    def build(cls, name: str, config: OpcuaConfig, surroundings: Surroundings) -> OpcuaReceiver:
        """See `connectors.source.Receiver`."""
        return cls(name, config, surroundings)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`. Raises `JournalError` when the journal is gone for good."""
        for noisy in ("asyncua", "asyncua.common.subscription", "asyncua.client"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)  # what matters is told here
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
                    await _closed(client)
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
        client = Client(config.endpoint, timeout=config.timeout / 1e9, watchdog_intervall=WATCHDOG_S)
        client.name = client.description = f"penstock {self.name}"
        client.application_uri = self._identity.uri
        if config.username is not None:
            client.set_user(config.username)
            client.set_password(config.password or "")
        await secure(client, config, self._identity)
        await client.connect()
        return client

    async def _session(self, number: int, items: Sequence[Item], stop: asyncio.Event) -> None:
        """One session for good: connected again whenever it is lost."""
        changes = Changes(items)
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
                        await self._appender.control("disconnected", {"source": self.name})
                    self._up.discard(number)
                if client is not None:
                    await _closed(client)
            if time.monotonic() - began > STEADY_S:
                backoff.reset()
            if not stop.is_set():
                self.status.reconnects += 1
                await backoff.wait(stop)

    async def _subscribed(self, number: int, client: Client, changes: Changes, stop: asyncio.Event) -> None:
        subscription = Subscription(client, self.config, changes.items)
        gone: set[int] = set()
        await subscription.create(await client.get_namespace_array())
        self._up.add(number)
        self._failed.pop(number, None)
        if len(self._up) == self._sessions:
            await self._appender.control("connected", {"source": self.name})
        self.status.peers = len(self._up)
        self._last_frame = time.monotonic()
        self._tell(number, subscription)
        log.info("connected to %s, %d nodes", self.config.endpoint, len(changes.items))

        async def take(published: Published | bytes, lost: bool, why: str) -> None:
            told = self._told(changes, published, lost, why)
            gone.update(told.gone)
            self._gaps += lost
            self._overflows += told.overflows
            if told.frames:
                await self._appender.append(told.frames)
            self._values += told.values
            self.status.frames += len(told.frames)
            self.status.bytes += sum(len(frame.payload) for frame in told.frames)
            self.status.last_frame_ms = int(time.time() * 1000)
            self._last_frame = time.monotonic()

        retrying = asyncio.create_task(self._retry(number, subscription, gone))
        try:
            await subscription.publish(take, stop)
        finally:
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
        return Told([Frame(self.name, published[:HEAD], headers=(("resync", why),))], 0, 0, [])

    async def _retry(self, number: int, subscription: Subscription, gone: set[int]) -> None:
        """Nodes that the server does not have are asked for again; a namespace may have come."""
        while True:
            await asyncio.sleep(self.config.retry / 1e9)
            for item in gone:
                subscription.missing.setdefault(item, "BadNodeIdUnknown")
            gone.clear()
            if subscription.missing:
                namespaces = await subscription.client.get_namespace_array()
                await subscription.watch(sorted(subscription.missing), namespaces)
            self._tell(number, subscription)

    def _tell(self, number: int, subscription: Subscription) -> None:
        self._missing[number] = {
            subscription.items[item].node: why for item, why in subscription.missing.items()
        }

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
            )  # fmt: skip
            if len(self._up) < self._sessions:
                continue
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


def _said(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer"
    if isinstance(error, ua.uaerrors.UaStatusCodeError):
        return f"the server refuses: {ua.StatusCode(error.code).name}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__


async def _closed(client: Client) -> None:
    with suppress(Exception):
        await asyncio.wait_for(client.disconnect(), CLOSE_S)
