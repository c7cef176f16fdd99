"""TCP framings that find their way back: every cut of a stream, hostile ones too, gives the same parts."""

from __future__ import annotations

import itertools
import zlib
from functools import reduce
from operator import xor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.tcp.config import (
    Delimiter,
    Fixed,
    Framing,
    JsonLines,
    LengthPrefix,
    ModbusTcp,
    StxEtx,
)
from connectors.tcp.framing import HEAD, Part, framer
from tests.receivers.test_framing import feed_all

FRAMINGS: dict[str, Framing] = {
    "length": LengthPrefix(size=1, max=30),
    "delimiter": Delimiter(delimiter="\r\n", escape="\\", max=9),
    "plain delimiter": Delimiter(delimiter="\r\n", max=9),
    "stx_etx": StxEtx(max=9),
    "stx_etx escaped": StxEtx(escape="\\", trailer=1, keep=True, max=9),
    "fixed": Fixed(size=5),
    "fixed sync": Fixed(size=6, sync="AA55"),
    "fixed modbus": Fixed(size=6, check="crc16_modbus"),
    "fixed sync sum": Fixed(size=4, sync="AA", check="sum8"),
    "modbus_tcp": ModbusTcp(),
    "json_lines": JsonLines(max=9),
}
# bytes that mean something in one of them, more often than chance would have it
_bytes = st.lists(
    st.sampled_from([b"\x02", b"\x03", b"\\", b"\r", b"\n", b"\xaa", b"\x55", b"\0\0\0\0\0\4", b"\x01"])
    | st.binary(min_size=1, max_size=12),
    max_size=40,
).map(b"".join)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(stream=_bytes, cuts=st.lists(st.integers(0, 2000), max_size=40), name=st.sampled_from(list(FRAMINGS)))
def test_every_cut_of_hostile_bytes_gives_the_same_parts(stream: bytes, cuts: list[int], name: str) -> None:
    whole, cut = framer(FRAMINGS[name], 1000), framer(FRAMINGS[name], 1000)
    expected = told(whole.feed(stream) + whole.end("over"))
    assert told(feed_all(cut, stream, cuts) + cut.end("over")) == expected
    drip = framer(FRAMINGS[name], 1000)
    assert told([p for byte in stream for p in drip.feed(bytes([byte]))] + drip.end("over")) == expected


def told(parts: list[Part]) -> list[Part]:
    """Of a length that cannot be, the connection ends with what had come: only its first byte is sure."""
    return [
        part._replace(payload=part.payload[:1]) if part.why.startswith("length") else part for part in parts
    ]


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS, bit by bit."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def ccitt(data: bytes) -> int:
    """CRC-16/CCITT-FALSE, bit by bit."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


CHECKS = {
    "sum8": (lambda data: sum(data) & 0xFF, 1),
    "xor8": (lambda data: reduce(xor, data), 1),
    "crc16_modbus": (crc16, 2),
    "crc16_ccitt": (ccitt, 2),
    "crc32": (zlib.crc32, 4),
}


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    bodies=st.lists(st.binary(min_size=7, max_size=7), max_size=8),
    noise=st.lists(st.binary(max_size=30), min_size=9, max_size=9),
    kind=st.sampled_from(list(CHECKS)),
    order=st.sampled_from(["le", "be"]),
)
def test_fixed_frames_with_a_checksum_against_a_plain_search(
    bodies: list[bytes], noise: list[bytes], kind: str, order: str
) -> None:
    check, size = CHECKS[kind]
    word = "little" if order == "le" else "big"

    def ends_well(window: bytes) -> bool:
        return window[7:] == check(window[:7]).to_bytes(size, word)  # type: ignore[arg-type]  # one of two

    framed = [body + check(body).to_bytes(size, word) for body in bodies]  # type: ignore[arg-type]  # one of two
    stream = b"".join(itertools.chain.from_iterable(itertools.zip_longest(noise, framed, fillvalue=b"")))
    expected, at = [], 0
    while at + 7 + size <= len(stream):
        if ends_well(stream[at : at + 7 + size]):
            expected.append(stream[at : at + 7 + size])
            at += 7 + size
        else:
            at += 1
    one = framer(Fixed(size=7 + size, check=kind, check_order=order), 100)  # type: ignore[arg-type]  # drawn
    assert [part.payload for part in one.feed(stream) if not part.why] == expected
    if not any(noise):
        assert expected == framed


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    payloads=st.lists(st.binary(max_size=20), max_size=10),
    trailer=st.integers(0, 2),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
def test_stx_etx_with_escape(payloads: list[bytes], trailer: int, cuts: list[int]) -> None:
    def escaped(data: bytes) -> bytes:
        return b"".join(b"\x10" + bytes([b]) if b in b"\x02\x03\x10" else bytes([b]) for b in data)

    stream = b"".join(b"\x02" + escaped(p) + b"\x03" + b"\x02\x03"[:trailer] + b"\r\n" for p in payloads)
    one = framer(StxEtx(escape="\x10", trailer=trailer, max=20), 1000)
    assert feed_all(one, stream, cuts) == [Part(payload + b"\x02\x03"[:trailer]) for payload in payloads]
    assert (one.partial, one.end("over")) == (0, [])


def test_stx_etx_finds_its_way_back() -> None:
    one = framer(StxEtx(max=5), 1000)
    why = "bytes outside of STX and ETX, or without an ETX"
    assert one.feed(b"noise\x02ok\x03\r\nmore\x02cut\x02whole\x03\x02too long\x03\x02x\x03") == [
        Part(b"noise", why),
        Part(b"ok"),
        Part(b"more\x02cut", why),
        Part(b"whole"),
        Part(b"\x02too long\x03", why),
        Part(b"x"),
    ]
    assert one.feed(b"\x02half") == []
    assert one.partial == 5
    assert one.end("it ended") == [Part(b"\x02half", "it ended after 5 bytes of a frame")]


def adu(unit: int, pdu: bytes, transaction: int = 1) -> bytes:
    return transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes([unit]) + pdu


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    frames=st.lists(
        st.tuples(
            st.integers(0, 255), st.binary(min_size=1, max_size=253), st.integers(0, 65_535), st.booleans()
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
    header=st.booleans(),
)
def test_modbus_tcp(frames: list[tuple[int, bytes, int, bool]], cuts: list[int], header: bool) -> None:
    stream, expected = b"", []
    for unit, pdu, transaction, noisy in frames:
        if noisy:
            stream += b"\xff" * 8
            expected.append(Part(b"\xff" * 8, "no Modbus TCP header"))
        whole = adu(unit, pdu, transaction)
        # bytes of noise followed by a transaction 0x0000 would be read as a header of their own
        stream += whole
        expected.append(Part(whole if header else pdu, port=unit))
    if any(noisy and transaction < 256 for *_, transaction, noisy in frames):
        return
    one = framer(ModbusTcp(header=header), 1000)
    assert feed_all(one, stream, cuts) + one.end("over") == expected


def test_json_lines() -> None:
    one = framer(JsonLines(max=9), 1000)
    assert one.feed(b'{"a":1}\r\n\n \r\n{"b": 22}\n{"c": 333}\n[0]\r') == [
        Part(b'{"a":1}'),
        Part(b'{"b": 22}'),
        Part(b'{"c": 333}', "no end of a line within 9 bytes"),
    ]
    assert one.feed(b"\n") == [Part(b"[0]")]


@pytest.mark.parametrize("name", ["stx_etx", "fixed sync", "fixed modbus", "modbus_tcp", "json_lines"])
def test_endless_garbage_is_told_once_and_kept_nowhere(name: str) -> None:
    one = framer(FRAMINGS[name], 1000)
    parts = [part for _ in range(20) for part in one.feed(b"\xf1" * 5000)]
    assert [bool(part.why) for part in parts] == [True]
    assert len(parts[0].payload) <= HEAD
    assert len(one._buffer) < 20  # type: ignore[attr-defined]  # the bound is what is tested


def test_a_rolling_checksum_is_the_checksum() -> None:
    good = b"".join(b + crc16(b).to_bytes(2, "little") for b in (bytes(98), b"\x07" * 98, bytes(range(98))))
    one = framer(Fixed(size=100, check="crc16_modbus"), 100)
    parts = one.feed(b"\x01" + good[:150] + b"\x01" + good)
    assert [part.payload for part in parts if not part.why][-3:] == [
        good[at : at + 100] for at in (0, 100, 200)
    ]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Fixed(size=0), "framing.size: a number from 1 to 100 is expected"),
        (Fixed(size=101), "framing.size: a number from 1 to 100 is expected"),
        (
            Fixed(size=3, sync="AA55", check="crc16_modbus"),
            "framing.size: a number from 4 to 100 is expected",
        ),
        (Fixed(size=3, sync="5"), 'framing.sync: bytes in hex are expected, e.g. "AA55"'),
        (StxEtx(stx="ab"), "framing: stx, etx and escape are one byte each, and differ"),
        (StxEtx(stx="\x03"), "framing: stx, etx and escape are one byte each, and differ"),
        (StxEtx(escape="\x02"), "framing: stx, etx and escape are one byte each, and differ"),
        (StxEtx(trailer=17), "framing.trailer: a number from 0 to 16 is expected"),
    ],
)
def test_framing_that_cannot_work(config: Framing, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        framer(config, 100)
    assert str(error.value) == text
