"""TCP framing: every cut of a stream gives the same frames; garbage is told once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.tcp.config import Delimiter, LengthPrefix, listen_address
from connectors.tcp.framing import Framer, Part, framer


def feed_all(one: Framer, stream: bytes, cuts: list[int]) -> list[Part]:
    parts: list[Part] = []
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        parts += one.feed(stream[start:end])
    return parts


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    payloads=st.lists(st.binary(max_size=40), max_size=12),
    cuts=st.lists(st.integers(0, 2000), max_size=30),
    size=st.sampled_from([1, 2, 4]),
    order=st.sampled_from(["be", "le"]),
    includes=st.booleans(),
)
def test_length_prefix(payloads: list[bytes], cuts: list[int], size: int, order: str, includes: bool) -> None:
    config = LengthPrefix(size=size, order=order, includes_header=includes, max=40)  # type: ignore[arg-type]  # drawn from its values
    extra = size if includes else 0
    byte_order = "big" if order == "be" else "little"
    stream = b"".join((len(p) + extra).to_bytes(size, byte_order) + p for p in payloads)  # type: ignore[arg-type]  # drawn from its values
    one = framer(config, 1000)
    assert feed_all(one, stream, cuts) == [Part(payload) for payload in payloads]
    assert one.partial == 0
    assert one.end("over") == []


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    payloads=st.lists(st.binary(max_size=20), max_size=12),
    cuts=st.lists(st.integers(0, 2000), max_size=40),
    delimiter=st.sampled_from(["\n", "\r\n", "ab", "\x7e"]),
)
def test_delimiter_with_escape(payloads: list[bytes], cuts: list[int], delimiter: str) -> None:
    end = delimiter.encode("latin-1")
    escaped = [b"".join(b"\\" + bytes([b]) if b in end + b"\\" else bytes([b]) for b in p) for p in payloads]
    stream = b"".join(payload + end for payload in escaped)
    one = framer(Delimiter(delimiter=delimiter, escape="\\", max=20), 1000)
    assert feed_all(one, stream, cuts) == [Part(payload) for payload in payloads]
    assert one.partial == 0


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    lines=st.lists(
        st.binary(max_size=60).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"")), max_size=10
    ),
    cuts=st.lists(st.integers(0, 2000), max_size=40),
    delimiter=st.sampled_from(["\n", "\r\n"]),
)
def test_too_long_lines_are_told_once_and_passed(lines: list[bytes], cuts: list[int], delimiter: str) -> None:
    stream = b"".join(line + delimiter.encode() for line in lines)
    one = framer(Delimiter(delimiter=delimiter, max=16), 1000)
    parts = feed_all(one, stream, cuts)
    assert [not part.why for part in parts] == [len(line) <= 16 for line in lines]
    assert [part.payload for part in parts if not part.why] == [line for line in lines if len(line) <= 16]
    for part, line in zip(parts, lines, strict=True):
        assert line.startswith(part.payload[: len(line)])
        assert not part.why or part.why == "no delimiter within 16 bytes"


def test_memory_is_bounded_without_a_delimiter() -> None:
    one = framer(Delimiter(max=1000), 1000)
    parts = [part for _ in range(100) for part in one.feed(b"x" * 5000)]
    assert [(len(part.payload), part.why) for part in parts] == [(1001, "no delimiter within 1000 bytes")]
    assert len(one._buffer) < 10  # type: ignore[attr-defined]  # the bound is what is tested
    assert one.feed(b"\nok\n") == [Part(b"ok")]


def test_a_length_beyond_the_cap_breaks_the_connection() -> None:
    one = framer(LengthPrefix(size=4, max=100), 50)
    assert one.feed(b"\x00\x00\x00\x01a\x7f\xff\xff\xffgarbage") == [
        Part(b"a"),
        Part(b"\x7f\xff\xff\xffgarbage", "length 2147483647, at most 50 allowed"),
    ]
    assert one.broken
    assert one.feed(b"more") == []


def test_a_length_that_cannot_include_its_header() -> None:
    one = framer(LengthPrefix(includes_header=True), 50)
    assert one.feed(b"\x00\x01") == [Part(b"\x00\x01", "length 1, at most 50 allowed")]


def test_what_is_left_at_the_end_is_told() -> None:
    one = framer(LengthPrefix(), 50)
    one.feed(b"\x00\x05abc")
    assert one.end("the connection ended") == [
        Part(b"\x00\x05abc", "the connection ended after 5 bytes of a frame")
    ]
    assert one.end("again") == []


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Delimiter(delimiter=""), "framing.delimiter: is empty; give at least one character"),
        (Delimiter(escape="ab"), "framing.escape: must be one character that is not in the delimiter"),
        (Delimiter(escape="\n"), "framing.escape: must be one character that is not in the delimiter"),
        (
            Delimiter(delimiter="€"),
            "framing.delimiter: '€' holds a character beyond U+00FF; write bytes as \\xNN",
        ),
    ],
)
def test_framing_that_cannot_work(config: Delimiter, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        framer(config, 100)
    assert str(error.value) == text


def test_listen_addresses() -> None:
    assert listen_address("127.0.0.1:7001") == ("127.0.0.1", 7001)
    assert listen_address("[::1]:7001") == ("::1", 7001)
    assert listen_address(":0") == ("", 0)
    for text in ("7001", "a:b", "a:70000", "a:-1"):
        with pytest.raises(ValueError, match="is no host:port"):
            listen_address(text)
