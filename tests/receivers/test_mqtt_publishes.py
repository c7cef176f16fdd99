"""The batch reader's kernel against a plain reading of the packets, for every cut of the bytes."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.fakes import MemoryAppender
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.publish_kernels import FULL, MALFORMED, MORE
from connectors.mqtt.publishes import Publishes
from connectors.mqtt.source import MqttReceiver
from connectors.source import is_reserved
from tests.receivers.running import running, until

Message = tuple[str, bytes, int, bool, int, list[tuple[str, str]], str | None, int | None]


def size(number: int) -> bytes:
    head = bytearray()
    while True:
        number, low = number >> 7, number & 127
        head.append(low | (128 if number else 0))
        if not number:
            return bytes(head)


def text(one: str) -> bytes:
    return struct.pack(">H", len(one.encode())) + one.encode()


def publish(message: Message, version5: bool, dup: bool = False) -> bytes:
    """MQTT 5, section 3.3."""
    topic, payload, qos, retain, mid, properties, content_type, expiry = message
    body = text(topic) + (struct.pack(">H", mid) if qos else b"")
    if version5:
        told = b"".join(b"\x26" + text(key) + text(value) for key, value in properties)
        told += b"\x03" + text(content_type) if content_type is not None else b""
        told += b"\x02" + struct.pack(">I", expiry) if expiry is not None else b""
        body += size(len(told)) + told
    body += payload
    return bytes([0x30 | dup << 3 | qos << 1 | retain]) + size(len(body)) + body


def read(data: bytes, cuts: list[int], version5: bool, held: Any = None) -> tuple[list[Any], list[int], int]:
    """Frames and packet ids by the kernel, with the bytes coming in pieces."""
    splitter = Publishes(version5, held if held is not None else np.zeros(65_536, np.uint64), 10**6, 10**6)
    frames, mids, at, why = [], [], 0, MORE
    for end in [*sorted(cuts), len(data)]:
        buffer = np.frombuffer(data[at:end], np.uint8).copy()
        start = 0
        while True:
            why = splitter.split(buffer, start, len(buffer))
            start = splitter.at
            batch = splitter.take()
            if batch is not None:
                frames += batch.rows.frames() if batch.rows is not None else []
                mids += batch.mids.tolist()
            if why != FULL:
                break
        if why == MALFORMED:
            break
        at += start
    return frames, mids, why


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
messages = st.lists(
    st.tuples(
        words.map(lambda name: f"plant/{name}"),
        st.binary(max_size=200),
        st.integers(0, 1),
        st.booleans(),
        st.integers(1, 65_535),
        st.lists(st.tuples(words, words), max_size=2),
        st.none() | words,
        st.none() | st.integers(0, 2**32 - 1),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(messages, st.booleans(), st.data())
def test_the_kernel_reads_what_was_written(sent: list[Message], version5: bool, data: st.DataObject) -> None:
    stream = b"".join(publish(message, version5) for message in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    frames, mids, why = read(stream, cuts, version5)
    assert why == MORE
    assert mids == [message[4] for message in sent if message[2]]
    expected = []
    for topic, payload, _, retain, _, properties, content_type, _ in sent:
        headers = [one for one in properties if not is_reserved(one[0])] if version5 else []
        if version5 and content_type is not None:
            headers.append(("content-type", content_type))
        expected.append((topic, payload, int(retain), tuple(headers)))
    assert [(one.topic, one.payload, one.flags, one.headers) for one in frames] == expected


def test_every_cut_of_two_messages() -> None:
    first: Message = ("a", b"x" * 130, 1, False, 7, [("k", "v")], "text/plain", 5)
    second: Message = ("b", b"", 0, True, 0, [], None, None)
    stream = publish(first, True) + publish(second, True)
    whole = read(stream, [], True)
    assert len(whole[0]) == 2
    for cut in range(len(stream)):
        assert read(stream, [cut], True) == whole


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.booleans(), st.lists(st.integers(0, 60), max_size=4))
def test_no_bytes_break_the_kernel(data: bytes, version5: bool, cuts: list[int]) -> None:
    read(b"\x32" + data, [min(cut, len(data)) for cut in cuts], version5)


@pytest.mark.parametrize(
    "packet",
    [
        b"\x32\xff\xff\xff\xff",  # a length of five bytes
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x34\x05\x00\x01a\x00\x01",  # QoS 2, which was not asked for
        b"\x32\x05\x00\x01a\x00\x00",  # packet id 0
        b"\x32\x05\x00\x09a\x00\x01",  # a topic longer than the packet
        b"\x30\x02\x00\x00",  # no topic
    ],
)
def test_what_is_no_packet_is_told(packet: bytes) -> None:
    assert read(packet, [], False)[2] == MALFORMED


def test_a_topic_alias_stands_for_its_topic() -> None:
    given_ = b"\x30\x0b\x00\x04a/b1\x03\x23\x00\x02x"
    again = b"\x30\x07\x00\x00\x03\x23\x00\x02y"
    frames, _, why = read(given_ + again, [], True)
    assert [(one.topic, one.payload) for one in frames] == [("a/b1", b"x"), ("a/b1", b"y")]
    assert why == MORE
    assert read(again, [], True)[2] == MALFORMED


def test_only_an_unacknowledged_message_can_be_repeated() -> None:
    held = np.zeros(65_536, np.uint64)
    one: Message = ("a", b"x", 1, False, 7, [], None, None)
    other: Message = ("a", b"y", 1, False, 7, [], None, None)
    assert len(read(publish(one, False), [], False, held)[0]) == 1
    assert read(publish(one, False, dup=True), [], False, held)[:2] == ([], [7])
    assert len(read(publish(other, False, dup=True), [], False, held)[0]) == 1  # not the same content
    held[7] = 0  # acknowledged: the id may be another message's
    assert len(read(publish(other, False, dup=True), [], False, held)[0]) == 1


class Broker:
    """Speaks just enough MQTT 3.1.1, one connection after the other."""

    def __init__(self) -> None:
        self.connections: list[asyncio.StreamWriter] = []
        self.acknowledged: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                head = await reader.readexactly(2)
                size = head[1]
                if size & 128:
                    size = size & 127 | (await reader.readexactly(1))[0] << 7
                body = await reader.readexactly(size)
                if head[0] == 0x10:
                    writer.write(bytes([0x20, 2, len(self.connections) > 1, 0]))
                elif head[0] == 0x82:
                    writer.write(b"\x90\x03" + body[:2] + b"\x01")
                elif head[0] == 0x40:
                    self.acknowledged.append(int.from_bytes(body, "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def test_a_repeat_is_acknowledged_once_durable_without_a_second_entry() -> None:
    def packets(start: int, end: int, dup: bool) -> bytes:
        return b"".join(
            publish(("plant/a", b"%d" % n, 1, False, n, [], None, None), False, dup)
            for n in range(start, end)
        )

    async def scene() -> None:
        broker = Broker()
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = MqttConfig(host="127.0.0.1", port=port, subscribe=["plant/#"])
        source, appender = MqttReceiver("line", config, plant="works"), MemoryAppender()
        appender.fill()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            broker.connections[0].write(packets(1, 11, False))
            await until(lambda: source.status.frames == 10)
            broker.connections[0].transport.abort()
            await until(lambda: len(broker.connections) == 2 and source.status.state == "connected")
            broker.connections[1].write(packets(1, 11, True) + packets(11, 16, True))
            await until(lambda: source.status.frames == 15)
            assert broker.acknowledged == []
            appender.drain()
            await until(lambda: len(broker.acknowledged) == 15)
        assert broker.acknowledged == list(range(1, 16))
        assert [frame.payload for frame in appender.frames] == [b"%d" % n for n in range(1, 16)]
        server.close()

    asyncio.run(scene())
