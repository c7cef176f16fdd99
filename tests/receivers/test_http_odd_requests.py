"""Requests that no library would send: the HTTP receiver at the level of bytes, and curl."""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard

from connectors.fakes import MemoryAppender
from connectors.http.config import HttpConfig
from connectors.http.source import HttpReceiver
from operators.spec import MILLISECOND
from tests.ports import free_port
from tests.receivers.certificates import Authority
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S

Taken = list[tuple[str, bytes]]


def scene(work: Any, folder: Path = Path(), **keys: Any) -> MemoryAppender:
    async def run() -> MemoryAppender:
        source = HttpReceiver("ingest", HttpConfig(listen=f"127.0.0.1:{free_port()}", **keys), folder)
        journal = MemoryAppender()
        async with running(source, journal):
            await until(lambda: source.status.state == "connected")
            await work(source, journal)
        return journal

    return asyncio.run(run())


async def answered(source: HttpReceiver, data: bytes, count: int = 1) -> tuple[list[int], bytes]:
    """The status of each of so many answers (fewer where the connection ends), and all their bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", source.port)
    writer.write(data)
    found = b""
    codes: list[int] = []
    try:
        while len(codes) < count:
            part = await asyncio.wait_for(reader.read(65_536), LIMIT_S)
            if not part:
                break
            found += part
            codes = [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d+) ", found)]
    finally:
        writer.close()
    return codes, found


def request(path: bytes, body: bytes = b"1", *heads: bytes, method: bytes = b"POST") -> bytes:
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: a", *heads]
    if not any(head.lower().startswith((b"content-length", b"transfer")) for head in heads):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def taken(journal: MemoryAppender) -> Taken:
    found = [(frame.topic, frame.payload) for frame in journal.frames]
    journal.frames.clear()
    return found


def test_pipelined_requests_are_answered_in_order() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        requests = [request(b"/ingest/n%d" % n, b"%d" % n) for n in range(50)]
        requests[20] = request(b"/elsewhere")
        codes, _ = await answered(source, b"".join(requests), 50)
        assert codes == [200] * 20 + [404] + [200] * 29
        assert taken(journal) == [(f"n{n}", b"%d" % n) for n in range(50) if n != 20]

    scene(work)


def test_an_address_is_a_name_and_no_path() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        for path, topic in (
            (b"../../etc/passwd", "../../etc/passwd"),
            (b"%2e%2e/%2E%2e%2fx", "../../x"),
            (b"/x", "/x"),
            (b"a%252fb", "a%2fb"),
            (b"a%zz", "a%zz"),
            (b"a+b%20c", "a+b c"),
            (b"%ED%95%9C%EA%B5%AD", "한국"),
        ):
            assert (await answered(source, request(b"/ingest/" + path)))[0] == [200]
            assert taken(journal) == [(topic, b"1")]
        for path in (b"%ed%a0%80", b"%c0%ae", b"%f5%80%80%80", b"a%0d%0ab", b"%e2%80%ae"):
            assert (await answered(source, request(b"/ingest/" + path)))[0] == [400]
        assert taken(journal) == []

    scene(work)


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"BREW"]
)
def test_other_methods(method: bytes) -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        codes, said = await answered(source, request(b"/ingest/a", b"", method=method))
        assert codes == [405]
        assert b"allow: POST\r\n" in said
        assert journal.frames == []

    scene(work)


def test_lengths_that_lie_and_chunks() -> None:
    chunked = b"Transfer-Encoding: chunked"
    whole = b"4\r\nwhol\r\n1;x=y\r\ne\r\n0\r\n\r\n"

    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        two = request(b"/ingest/a", whole, chunked) + request(b"/ingest/b")
        assert (await answered(source, two, 2))[0] == [200, 200]
        assert taken(journal) == [("a", b"whole"), ("b", b"1")]
        for heads, body in (
            ((b"Content-Length: 1", b"Content-Length: 2"), b"12"),
            ((b"Content-Length: -1",), b""),
            ((b"Content-Length: +1",), b"1"),
            ((b"Content-Length: 99999999999999999999",), b"1"),
            ((b"Transfer-Encoding: gzip",), b"1"),
            ((b"Content-Length: 1", b"X: a\r\n folded"), b"1"),
            ((b"Content-Length: 1", b"X: a\0b"), b"1"),
            ((chunked,), b"zz\r\n1\r\n0\r\n\r\n"),
            ((chunked, b"Content-Type: application/jsonl"), b"2\r\n1\n\r\nzz\r\n"),
            ((chunked,), b"1\r\n1\r\n0\r\nTrailer: yes\r\n\r\n"),
        ):
            assert (await answered(source, request(b"/ingest/a", body, *heads)))[0][:1] in ([400], []), heads
        # with both lengths the chunks are what is read, and the connection ends
        both = request(b"/ingest/a", whole, b"Content-Length: 4", chunked) + request(b"/ingest/smuggled")
        assert (await answered(source, both, 2))[0] == [200]
        assert taken(journal) == [("a", b"whole")]

    scene(work)


@pytest.mark.parametrize("size", [9, 500_000])
def test_a_body_that_breaks_off_leaves_nothing(size: int) -> None:
    """However it says its length, and whatever of it could stand alone."""
    lines = b'{"v":1}\n' * (size // 16 + 1)

    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        kind = b"Content-Type: application/jsonl"
        length = b"Content-Length: %d" % (size + len(lines))
        chunks = b"%x\r\n%s\r\n" % (len(lines), lines)
        for data in (
            request(b"/ingest/a", lines, kind, length),
            request(b"/ingest/a", chunks, kind, b"Transfer-Encoding: chunked"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", source.port)
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), LIMIT_S)
            assert b"400 Bad Request" in answer
            assert b'"the body is cut short' in answer
            writer.close()
        await until(lambda: source._requests == 0)
        assert source._in_hand == 0
        assert journal.frames == []

    scene(work)


def test_slow_bodies_hold_nothing_for_others() -> None:
    """Clients that announce much and send little take no room that others need."""

    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        slow = []
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", source.port)
            writer.write(request(b"/ingest/a", b"x", b"Content-Length: 16000000"))
            slow.append(writer)
        await until(lambda: source._requests == 20)
        assert (await answered(source, request(b"/ingest/b")))[0] == [200]
        for writer in slow:
            writer.close()
        assert taken(journal) == [("b", b"1")]

    scene(work, body_timeout=10_000 * MILLISECOND)


def test_what_unpacks_to_more_than_it_may() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        zeros = bytes(200_000_000)
        for name, body in (("gzip", gzip.compress(zeros, 9)), ("zstd", zstandard.compress(zeros))):
            assert len(body) < 1_000_000
            code = b"Content-Encoding: " + name.encode()
            codes, said = await answered(source, request(b"/ingest/a", body, code))
            assert (codes, b"the body unpacks to more than 1000000 bytes" in said) == ([413], True)
        codes, _ = await answered(source, request(b"/ingest/a", b"1", b"Content-Encoding: gzip, gzip"))
        assert codes == [415]
        assert journal.frames == []

    scene(work, max_body=1_000_000)


def test_heads_beyond_their_cap() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        many = [b"x-%d: 1" % n for n in range(200)]
        for data in (
            request(b"/ingest/a", b"1", *many),
            request(b"/ingest/" + b"a" * 20_000),
            request(b"/ingest/a", b"1", b"X: " + b"y" * 30_000),
        ):
            assert (await answered(source, data))[0] == [431]
        for data in (b"GET /\r\n\r\n", b"\0" * 20_000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            assert (await answered(source, data))[0] in ([400], [431], [])
        assert (await answered(source, b"POST /ingest/a HTTP/1.0\r\nContent-Length: 1\r\n\r\n1"))[0] == [200]
        assert taken(journal) == [("a", b"1")]

    scene(work)


# a client that nobody here wrote


def curl(*arguments: str, give: bytes | None = None) -> tuple[str, bytes]:
    """The status that curl saw (000: none), and the body."""
    program = shutil.which("curl")
    assert program is not None
    done = subprocess.run(
        [program, "-sS", "-m", "30", "-w", "\n%{http_code}", *arguments], input=give, capture_output=True
    )
    body, _, code = done.stdout.rpartition(b"\n")
    return code.decode(), body


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    ours.issue("server")
    theirs.issue("stranger")
    lines = b"\n".join(b'{"v": %d}' % number for number in range(50_000))
    (tmp_path / "lines.gz").write_bytes(gzip.compress(lines))

    async def work(source: HttpReceiver, journal: MemoryAppender) -> None:
        url = f"https://127.0.0.1:{source.port}/ingest"
        key = ("--cacert", str(tmp_path / "ours.pem"), "-H", "X-API-Key: k")

        async def call(*arguments: str, give: bytes | None = None) -> tuple[str, bytes]:
            return await asyncio.to_thread(curl, *arguments, give=give)

        good = ("200", b'{"accepted": 1}')
        assert await call(*key, f"{url}/line/press-01", "-d", '{"v": 1}') == good
        assert taken(journal) == [("line/press-01", b'{"v": 1}')]
        # more than a megabyte: curl asks with Expect: 100-continue first
        big = ("-H", "Content-Type: application/x-ndjson", "--data-binary")
        assert await call(*key, f"{url}/a", *big, "@-", give=lines * 3) == ("200", b'{"accepted": 149998}')
        assert b"\n".join(payload for _, payload in taken(journal)) == lines * 3
        packed = ("-H", "Content-Encoding: gzip", f"{url}/a", *big, f"@{tmp_path / 'lines.gz'}")
        assert await call(*key, *packed) == ("200", b'{"accepted": 50000}')
        assert len(taken(journal)) == 50_000
        chunks = ("-H", "Transfer-Encoding: chunked", f"{url}/a", "--data-binary", "@-")
        assert await call(*key, *chunks, give=b"z" * 300_000) == good
        assert taken(journal) == [("a", b"z" * 300_000)]
        # two requests of one connection
        assert (await call(*key, f"{url}/a", f"{url}/b", "-d", "1"))[1].count(b"accepted") == 2
        assert taken(journal) == [("a", b"1"), ("b", b"1")]
        assert (await call(*key, "-I", f"{url}/a"))[0] == "405"
        assert (await call(*key, "-T", str(tmp_path / "lines.gz"), f"{url}/a"))[0] == "405"
        assert (await call("--cacert", str(tmp_path / "ours.pem"), f"{url}/a", "-d", "1"))[0] == "401"
        assert (await call("--cacert", str(tmp_path / "theirs.pem"), f"{url}/a", "-d", "1"))[0] == "000"
        assert (await call(*key, "--tls-max", "1.1", f"{url}/a", "-d", "1"))[0] == "000"
        assert journal.frames == []

    scene(
        work,
        tmp_path,
        tls=True,
        cert_file="server.pem",
        key_file="server.key",
        api_keys=["k"],
        max_batch=200_000,
    )
