"""Listening for devices that connect over TCP: their streams, and the framing that fits all of them."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import Counter
from typing import Final, NamedTuple

import click

from connectors.errors import ConfigError, ConnectError
from connectors.tcp.config import (
    Delimiter,
    Fixed,
    Framing,
    JsonLines,
    LengthPrefix,
    ModbusTcp,
    StxEtx,
    listen_address,
)
from connectors.tcp.framing import framer
from flows.heard import MOST_FRAMES, HeardFrame, counted, system_words
from operators.batch import Address

SOURCE: Final = "line1"
MOST_BYTES: Final = 100_000_000
_PROGRESS_S: Final = 5.0
_CAP: Final = 65_535
_SYNC: Final = 2  # bytes that frames of one size begin with, at most

# the ones that other streams fit least by chance come first
FRAMINGS: Final[tuple[tuple[str, Framing], ...]] = (
    ("{kind: json_lines}", JsonLines()),
    ("{kind: modbus_tcp}", ModbusTcp()),
    ("{kind: stx_etx}", StxEtx()),
    ("{kind: stx_etx, trailer: 1}", StxEtx(trailer=1)),
    ("{kind: stx_etx, trailer: 2}", StxEtx(trailer=2)),
    ("{kind: length_prefix, size: 4}", LengthPrefix(size=4)),
    ("{kind: length_prefix, size: 4, order: le}", LengthPrefix(size=4, order="le")),
    ("{kind: length_prefix, size: 2}", LengthPrefix()),
    ("{kind: length_prefix, size: 2, order: le}", LengthPrefix(order="le")),
    ("{kind: length_prefix, size: 2, includes_header: true}", LengthPrefix(includes_header=True)),
    (
        "{kind: length_prefix, size: 2, order: le, includes_header: true}",
        LengthPrefix(order="le", includes_header=True),
    ),
    ('{kind: delimiter, delimiter: "\\r\\n"}', Delimiter(delimiter="\r\n")),
    ('{kind: delimiter, delimiter: "\\n"}', Delimiter()),
)
LEAST_READS: Final = 3  # before their sizes and ends say anything
_CONTROL: Final = (b"\r", b"\0")
_ENDS: Final = {b"\r": "\\r", b"\0": "\\0", b";": ";", b"#": "#", b"|": "|"}


class Read(NamedTuple):
    """What one read of a connection gave. connection: host and port of the peer."""

    connection: tuple[str, int]
    data: bytes
    ingest_ms: int


def tcp_address(text: str) -> str | None:
    """The `listen:` of `tcp://host:port`; None where the text is no such address. Raises `ConfigError`."""
    if not text.startswith("tcp://"):
        return None
    address = text.removeprefix("tcp://").rstrip("/")
    try:
        listen_address(address)
    except ValueError as error:
        raise ConfigError(f"--from: {error}") from error
    return address


def listen_tcp(address: str, seconds: float) -> list[Read]:
    """What peers send that connect within `seconds`, or until Ctrl-C; at most `MOST_BYTES` and
    `MOST_FRAMES` reads. Nothing is answered. Raises `ConnectError` where it cannot listen."""
    host, port = listen_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConnectError(f"cannot listen on {address}: {system_words(error)}") from error
    reads: list[Read] = []
    size = 0
    with server, selectors.DefaultSelector() as waiting:
        server.setblocking(False)
        waiting.register(server, selectors.EVENT_READ, None)
        click.echo(f"listening on {address} for {seconds:g} s; Ctrl-C ends it", err=True)
        end = time.monotonic() + seconds
        told = time.monotonic() + _PROGRESS_S
        try:
            while (left := end - time.monotonic()) > 0 and size < MOST_BYTES and len(reads) < MOST_FRAMES:
                for key, _ in waiting.select(min(left, _PROGRESS_S)):
                    if key.data is None:
                        peer, where = server.accept()
                        peer.setblocking(False)
                        waiting.register(peer, selectors.EVENT_READ, (str(where[0]), int(where[1])))
                    elif data := _received(key.fileobj):  # type: ignore[arg-type]  # a socket: registered here
                        reads.append(Read(key.data, data, time.time_ns() // 1_000_000))
                        size += len(data)
                    else:
                        waiting.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]  # as above
                if time.monotonic() >= told:
                    peers = counted(len({read.connection for read in reads}), "connection")
                    click.echo(f"{counted(size, 'byte')} of {peers}", err=True)
                    told += _PROGRESS_S
        except KeyboardInterrupt:
            pass
        for key in list(waiting.get_map().values()):
            if key.data is not None:
                key.fileobj.close()  # type: ignore[union-attr]  # as above
    return reads


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65_536)
    except OSError:
        return b""


def framed(reads: list[Read]) -> tuple[str, list[HeardFrame]]:
    """The first of `FRAMINGS` that fits every connection, as plant.yaml has it, and the frames. Raises
    `ConfigError`, with what was read, where none fits."""
    for text, config in (*FRAMINGS, *_by_reads(reads)):
        frames = _frames(config, reads)
        wanted = {JsonLines: _is_json, Delimiter: _is_text}.get(type(config))
        if frames and (wanted is None or all(wanted(frame.payload) for frame in frames)):
            return text, frames
    if _is_json_unframed(reads):
        raise ConfigError(
            "what was heard is JSON with nothing between one value and the next, which no framing tells apart"
            "; let the device end each with a line feed ({kind: json_lines}), or send its length before it "
            "({kind: length_prefix, size: 2})"
        )
    sizes = Counter(len(read.data) for read in reads)
    told = ", ".join(f"{size} bytes {count}x" for size, count in sizes.most_common(20))
    raise ConfigError(
        f"no framing fits what was heard: the reads had {told}; the first: {reads[0].data[:64].hex(' ')}"
    )


def _by_reads(reads: list[Read]) -> list[tuple[str, Framing]]:
    """Framings that fit other streams by chance, where the reads look as if a frame came in each: an end
    that stands nowhere else, a length in one byte, one size."""
    if len(reads) < LEAST_READS:
        return []
    found: list[tuple[str, Framing]] = []
    for end, shown in _ENDS.items():
        once = end not in _CONTROL  # what may stand in a text ends it only where it stands nowhere else
        if all(read.data.endswith(end) and (not once or read.data.count(end) == 1) for read in reads):
            found.append((f'{{kind: delimiter, delimiter: "{shown}"}}', Delimiter(delimiter=end.decode())))
    if all(map(_is_prefixed, (read.data for read in reads))):
        found.append(("{kind: length_prefix, size: 1}", LengthPrefix(size=1)))
    size = min(len(read.data) for read in reads)
    if size > 1 and all(len(read.data) % size == 0 for read in reads) and not _is_json(reads[0].data):
        frames = [read.data[at : at + size] for read in reads for at in range(0, len(read.data), size)]
        same = (
            [frame[0] == frames[0][0] for frame in frames],
            [frame[:2] == frames[0][:2] for frame in frames],
        )
        sync = frames[0][: sum(map(all, same)) if size > _SYNC else 0].hex()
        told = f', sync: "{sync}"' if sync else ""
        found.append((f"{{kind: fixed, size: {size}{told}}}", Fixed(size=size, sync=sync or None)))
    return found


def _is_prefixed(data: bytes) -> bool:
    """Whether it is frames behind a length of one byte each."""
    at = 0
    while at < len(data):
        at += 1 + data[at]
    return at == len(data)


def _frames(config: Framing, reads: list[Read]) -> list[HeardFrame]:
    """The frames under a framing; none where it does not fit: garbage, an empty frame, a connection
    without a frame, or an end that is longer than the frames before it."""
    framers = {read.connection: framer(config, _CAP) for read in reads}
    largest = dict.fromkeys(framers, 0)
    frames: list[HeardFrame] = []
    for read in reads:
        host, port = read.connection
        headers = (("peer", f"{host}:{port}"),)
        for part in framers[read.connection].feed(read.data):
            if part.why or not part.payload:
                return []
            largest[read.connection] = max(largest[read.connection], len(part.payload))
            frames.append(HeardFrame(Address(SOURCE, host, part.port, headers), part.payload, read.ingest_ms))
    if any(not largest[peer] or one.partial > largest[peer] + 8 for peer, one in framers.items()):
        return []
    return frames


def _is_json(payload: bytes) -> bool:
    try:
        return isinstance(json.loads(payload), dict | list)
    except (ValueError, RecursionError):
        return False


def _is_json_unframed(reads: list[Read]) -> bool:
    """Whether every connection sent JSON values one behind the other."""
    sent: dict[tuple[str, int], bytes] = {}
    for read in reads:
        sent[read.connection] = sent.get(read.connection, b"") + read.data
    return all(_is_json_run(data) for data in sent.values())


def _is_json_run(data: bytes) -> bool:
    text, at, found = data.decode("utf-8", "replace").strip(), 0, 0
    decoder = json.JSONDecoder()
    try:
        while at < len(text) and text[at] in "{[":
            at, found = decoder.raw_decode(text, at)[1], found + 1
    except (ValueError, RecursionError):
        pass  # the last may have been cut off by the end of listening
    return found > 1 and (at == len(text) or text[at] in "{[")


def _is_text(payload: bytes) -> bool:
    try:
        return payload.decode().replace("\t", " ").strip("\r").isprintable()
    except UnicodeDecodeError:
        return False
