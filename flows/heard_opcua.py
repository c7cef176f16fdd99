"""Listening to an OPC UA server: its variables, what it says of them, and what they are for a while."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import click
from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError

from connectors.errors import ConfigError, ConnectError
from connectors.opcua.browse import Variable, node_text, variables
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.nodes import Item, write_nodes
from connectors.opcua.properties import Properties, read_properties
from connectors.opcua.security import quiet
from connectors.opcua.source import OpcuaReceiver
from connectors.source import Frame, FrameRows, Leaving, Surroundings
from flows.heard import MOST_FRAMES, HeardFrame
from flows.scaffold import metric_name
from operators.batch import Address

SOURCE: Final = "scada"
NODES: Final = "opcua-nodes.csv"
MOST_VARIABLES: Final = 20_000
MOST_BYTES: Final = 200_000_000
LONGEST_ARRAY: Final = 8  # elements that become a metric each
DEPTH: Final = 12
TIMEOUT_S: Final = 10.0
_PROGRESS_S: Final = 5.0


class Server(NamedTuple):
    """Where to listen. endpoint: without user and password."""

    endpoint: str
    username: str = ""
    password: str = ""


@dataclass(slots=True)
class Told:
    """items: what is read; said: what the server says of each; left_out: how many variables are of no use,
    by why; frames: what they were, as typed frames."""

    server: Server
    items: list[Item]
    said: list[Properties]
    left_out: Counter[str] = field(default_factory=Counter)
    frames: list[HeardFrame] = field(default_factory=list)


def server_of(text: str) -> Server:
    """The server of `opc.tcp://[user[:password]@]host[:port][/path]`; without a password that of the
    environment's OPCUA_PASSWORD. Raises `ConfigError`."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"--from: no address: {error}; write opc.tcp://HOST:PORT") from error
    if not host:
        raise ConfigError("--from: the address names no host; write opc.tcp://HOST:PORT")
    shown = f"[{host}]" if ":" in host else host
    endpoint = f"opc.tcp://{shown}:{port or 4840}{parts.path if parts.path != '/' else ''}"
    user = unquote(parts.username or "")
    password = unquote(parts.password or "") or (os.environ.get("OPCUA_PASSWORD", "") if user else "")
    return Server(endpoint, user, password)


def listen_opcua(server: Server, seconds: float) -> Told:
    """What a server tells within `seconds` of its first values, or until Ctrl-C: at once what every
    variable is, then what changes; at most `MOST_FRAMES` and `MOST_BYTES`. Raises `ConnectError` where it is
    not there or refuses."""
    quiet()
    try:
        return asyncio.run(_listened(server, seconds))
    except ua.uaerrors.UaStatusCodeError as error:
        raise ConnectError(f"{server.endpoint} refuses: {ua.StatusCode(error.code).name}") from error
    except TimeoutError as error:
        raise ConnectError(f"{server.endpoint} does not answer within {TIMEOUT_S:.0f} s") from error
    except (OSError, UaError) as error:
        raise ConnectError(f"{server.endpoint} does not answer: {error}") from error


async def _listened(server: Server, seconds: float) -> Told:
    told = await _found(server)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, ValueError, RuntimeError):  # only in a main thread
        loop.add_signal_handler(signal.SIGINT, stop.set)
    texts = any(one.texts for one in told.said)
    config = OpcuaConfig(
        endpoint=server.endpoint, nodes=NODES, enumerations="texts" if texts else "numbers", queue=100,
        username=server.username or None, password=server.password or None,
    )  # fmt: skip
    click.echo(
        f"listening to {len(told.items)} nodes of {server.endpoint} for {seconds:g} s; Ctrl-C ends it",
        err=True,
    )
    kept = _Kept(told.frames, stop)
    with tempfile.TemporaryDirectory() as folder:
        place = Surroundings("new", Path(folder), Path(folder), {NODES: write_nodes(told.items)})
        receiver = OpcuaReceiver.build(SOURCE, config, place)
        receiver.kept = False
        receiving = asyncio.create_task(receiver.run(kept, stop))
        try:
            await _first(kept, receiving, stop)
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0 and not stop.is_set() and not receiving.done():
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), min(left, _PROGRESS_S))
                devices = len({frame.address.topic for frame in kept.frames})
                click.echo(f"{receiver.status.extra.get('values_total', 0):.0f} values of {devices} devices",
                           err=True)  # fmt: skip
        finally:
            stop.set()
            await receiving
    return told


async def _first(kept: _Kept, receiving: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Wait for the first values, for some time."""
    limit = time.monotonic() + 2 * TIMEOUT_S
    while not (kept.frames or stop.is_set() or receiving.done()) and time.monotonic() < limit:
        await asyncio.sleep(0.02)


async def _found(server: Server) -> Told:
    """The server's variables that a plant can read, and what it says of them."""
    client = Client(server.endpoint, timeout=TIMEOUT_S)
    if server.username:
        client.set_user(server.username)
        client.set_password(server.password)
    endpoints = await client.connect_and_get_server_endpoints()
    if not any(one.SecurityMode == ua.MessageSecurityMode.None_ for one in endpoints):
        offered = sorted({one.SecurityPolicyUri.rpartition("#")[2] for one in endpoints})
        raise ConnectError(
            f"{server.endpoint} lets nobody in without security (it offers {', '.join(offered)}); "
            "write a source of kind opcua with 'security' and 'trust' instead"
        )
    await client.connect()
    try:
        namespaces = await client.get_namespace_array()
        found = await variables(client, ua.NodeId(ua.Int32(ObjectIds.ObjectsFolder)), DEPTH, MOST_VARIABLES)
        said = await read_properties(client, [one.node for one in found])
        arrays = await _lengths(client, [one.node for one, of in zip(found, said, strict=True) if of.array])
    finally:
        with suppress(Exception):
            await client.disconnect()
    told = Told(server, [], [])
    devices = _device_names(found)
    metrics: dict[str, dict[str, None]] = {}
    for one, of in zip(found, said, strict=True):
        length = next(arrays) if of.array else 0
        why = _useless(of, length)
        if why:
            told.left_out[why] += 1
            continue
        device = devices[one.path[: one.objects]]
        taken = metrics.setdefault(device, {})
        node, path = node_text(one.node, namespaces), one.path[one.objects :] or one.path[-1:]
        for place in range(length) if of.array else (None,):
            name = metric_name((*path, place) if place is not None else path, taken)
            taken[name] = None
            told.items.append(Item(node, device, name, place=None if place is None else str(place)))
            told.said.append(of)
    if not told.items:
        raise ConfigError(f"{server.endpoint}: no variable of it could become a metric")
    return told


async def _lengths(client: Client, nodes: Sequence[Any]) -> Any:
    """How many elements each array has, one after the other."""
    found: list[int] = []
    for first in range(0, len(nodes), 100):
        answers = await client.uaclient.session.read_attributes(
            list(nodes[first : first + 100]), AttributeIds.Value
        )
        values = [one.Value.Value if one.Value is not None else None for one in answers]
        found += [len(value) if isinstance(value, list) else 0 for value in values]
    return iter(found)


def _useless(of: Properties, length: int) -> str:
    """Why a variable becomes no metric; "" if it does."""
    if not of.kind:
        return "of a type that is no number, boolean or text"
    if of.array and not 0 < length <= LONGEST_ARRAY:
        return f"arrays without elements, or of more than {LONGEST_ARRAY}"
    return ""


def _device_names(found: Sequence[Variable]) -> Mapping[tuple[str, ...], str]:
    """The name of each object with variables: its browse name, with as many of those above it as make
    it another than the others'."""
    paths = list(dict.fromkeys(one.path[: one.objects] for one in found))
    names: dict[tuple[str, ...], str] = {}
    for path in paths:
        many = 1
        while many < len(path) and any(
            other[-many:] == path[-many:] for other in paths if other != path and len(other) >= many
        ):
            many += 1
        shown = "-".join(path[-many:]) or "server"
        clean = "".join(one if one.isprintable() and one != "/" else "_" for one in shown).strip()[:100]
        name = next(
            one
            for one in (clean or "device", *(f"{clean}-{n}" for n in range(2, len(paths) + 2)))
            if one not in names.values()
        )
        names[path] = name
    return names


class _Kept:
    """An appender that keeps frames here."""

    shards = 1

    def __init__(self, frames: list[HeardFrame], full: asyncio.Event) -> None:
        self.frames, self.full = frames, full
        self._size = 0

    def shard_of(self, device_id: str) -> int:
        return 0

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        now = time.time_ns() // 1_000_000
        for one in frames:
            self.frames.append(
                HeardFrame(Address(SOURCE, one.topic, one.port, one.headers), one.payload, now)
            )
            self._size += len(one.payload)
        if len(self.frames) >= MOST_FRAMES or self._size >= MOST_BYTES:
            self.full.set()
        return 0

    async def append_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Leaving | None = None
    ) -> int:
        return await self.append(rows.frames(), key)

    async def appended(self, session: bytes) -> int:
        return 0

    async def control(self, kind: str, data: Mapping[str, object]) -> None:
        """Connected or not: the progress tells."""
