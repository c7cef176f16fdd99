"""The HTTP receiver over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from connectors.errors import ConfigError, JournalError
from connectors.fakes import MemoryAppender
from connectors.http.config import HttpConfig
from connectors.http.source import HttpReceiver
from operators.spec import MILLISECOND, SECOND
from tests.ports import free_port
from tests.receivers.certificates import Authority
from tests.receivers.proxy import Proxy
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S


def receiver(**keys: Any) -> HttpReceiver:
    return HttpReceiver("ingest", HttpConfig(listen=f"127.0.0.1:{free_port()}", **keys))


async def client(source: HttpReceiver, **keys: Any) -> httpx.AsyncClient:
    await until(lambda: source.status.state == "connected")
    scheme = "https" if source.config.tls else "http"
    return httpx.AsyncClient(base_url=f"{scheme}://127.0.0.1:{source.port}", timeout=LIMIT_S, **keys)


def scene(work: Any, appender: MemoryAppender | None = None, **keys: Any) -> MemoryAppender:
    """Run `work(source, appender, client)` against a receiver of these keys."""

    async def run() -> MemoryAppender:
        source, journal = receiver(**keys), appender or MemoryAppender()
        async with running(source, journal), await client(source) as web:
            await work(source, journal, web)
        return journal

    return asyncio.run(run())


async def raw(source: HttpReceiver, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", source.port)
    writer.write(data)
    return reader, writer


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def test_a_post_is_answered_after_the_commit() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        journal.fill()
        posting = asyncio.create_task(web.post("/ingest/plant%2Fpress-01/caf%C3%A9?port=7", content=b"{}"))
        await asyncio.sleep(0.3)
        assert not posting.done()
        journal.drain()
        answer = await posting
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1})
        (frame,) = journal.frames
        assert (frame.topic, frame.payload, frame.port, frame.headers) == (
            "plant/press-01/café",
            b"{}",
            7,
            (),
        )

    journal = scene(work)
    assert journal.controls == [("connected", {"source": "ingest"}), ("disconnected", {"source": "ingest"})]


def test_batches_packed_and_plain() -> None:
    lines = [b'{"v":%d}' % number for number in range(1000)]

    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        for kind, body in (
            ("application/x-ndjson", b"\n".join(lines)),
            ("application/json", b"[" + b",".join(lines) + b"]"),
        ):
            for encoding, packed in (
                ("", body),
                ("gzip", gzip.compress(body)),
                ("zstd", zstandard.compress(body)),
            ):
                headers = {"content-type": kind, **({"content-encoding": encoding} if encoding else {})}
                answer = await web.post("/ingest/a", content=packed, headers=headers)
                assert answer.json() == {"accepted": 1000}
                assert [frame.payload for frame in journal.frames] == lines
                journal.frames.clear()

        async def chunks() -> Any:
            for line in lines:
                yield line + b"\n"

        answer = await web.post("/ingest/a", content=chunks(), headers={"content-type": "application/jsonl"})
        assert answer.json() == {"accepted": 1000}
        assert [frame.payload for frame in journal.frames] == lines
        answer = await web.post("/ingest/a", content=b"\n", headers={"content-type": "application/jsonl"})
        assert answer.json() == {"accepted": 0}

    scene(work)


def test_a_csv_header_travels_with_its_rows() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        await web.post("/ingest/a", content=b"t,v\n1,2\n3,4\n", headers={"content-type": "text/csv"})
        assert [(frame.payload, frame.headers) for frame in journal.frames] == [
            (b"1,2", (("csv", "t,v"),)),
            (b"3,4", (("csv", "t,v"),)),
        ]

    scene(work)


def test_only_headers_that_are_named_go_with_a_frame() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        headers = {"X-Device": "press-01", "X-Line": "7", "resync": "no", "penstock-resubmitted": "1@1"}
        await web.post("/ingest/a", content=b"1", headers=headers)
        assert journal.frames[0].headers == (("x-line", "7"), ("x-device", "press-01"))

    scene(work, headers=["X-Line"], device="header:X-Device")


def test_the_peer_as_the_device() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        await web.post("/ingest/a", content=b"1")
        assert journal.frames[0].headers == (("peer", "127.0.0.1"),)

    scene(work, device="peer")


def test_an_idempotency_key_is_appended_once_across_restarts() -> None:
    appender = MemoryAppender()
    key = {"idempotency-key": "b-17", "content-type": "application/jsonl"}

    async def first(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(
            *(web.post("/ingest/a", content=b"1\n2", headers=key) for _ in range(3))
        )
        assert [answer.json() for answer in answers] == [{"accepted": 2}] * 3
        assert [frame.payload for frame in journal.frames] == [b"1", b"2"]
        assert error(await web.post("/ingest/a", content=b"3", headers=key)) == (
            422,
            "this Idempotency-Key came with another body or other headers",
        )
        await web.post("/ingest/b", content=b"1\n2", headers=key)  # of another address: another request
        assert error(await web.post("/ingest/a", content=b"3", headers={"idempotency-key": "x" * 256})) == (
            400,
            "Idempotency-Key has 1 to 255 characters",
        )

    async def second(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        assert (await web.post("/ingest/a", content=b"1\n2", headers=key)).json() == {"accepted": 2}

    scene(first, appender)
    assert [frame.topic for frame in appender.frames] == ["a", "a", "b", "b"]
    scene(second, appender)
    assert len(appender.frames) == 4


def test_what_is_refused_and_why() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        bad = "the address is 1 to 1024 printable characters of UTF-8"
        for method, path, expected in (
            ("GET", "/ingest/a", (405, "GET is not taken; POST /ingest/{address}")),
            ("POST", "/elsewhere", (404, "there is nothing here; POST /ingest/{address}")),
            ("POST", "/ingest/", (400, bad)),
            ("POST", "/ingest/a%00b", (400, bad)),
            ("POST", "/ingest/a%ff", (400, bad)),
            ("POST", "/ingest/" + "a" * 1025, (400, bad)),
            ("POST", "/ingest/a?port=x", (400, "the query is ?port=N or nothing")),
        ):
            assert error(await web.request(method, path, content=b"1")) == expected
        assert error(await web.post("/ingest/a", content=b"x" * 2001)) == (
            413,
            "the body has more than 2000 bytes",
        )
        assert error(await web.post("/ingest/a", content=b"x" * 200)) == (
            413,
            "frame 0 has 200 bytes, at most 100 allowed",
        )
        bomb = gzip.compress(bytes(10_000_000), 9)[:1999]
        answer = await web.post("/ingest/a", content=bomb, headers={"content-encoding": "gzip"})
        assert error(answer) == (413, "the body unpacks to more than 2000 bytes")
        assert error(await web.post("/ingest/a", content=b"1", headers={"origin": "http://evil"})) == (
            403,
            "requests of web pages are not taken without an API key",
        )
        assert source.status.refused == 11

        async def endless() -> Any:
            while True:
                yield b"x" * 500

        with contextlib.suppress(httpx.HTTPError):  # the answer may be lost while it still writes
            assert (await web.post("/ingest/a", content=endless())).status_code == 413
        assert journal.frames == []
        assert (await web.post("/ingest/a", content=b"good")).status_code == 200

    scene(work, max_body=2000, max_frame=100)


def test_api_keys() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Basic second"}, {"x-api-key": ""}):
            answer = await web.post("/ingest/a", content=b"1", headers=headers)
            assert error(answer) == (401, "an API key is expected: X-API-Key, or Authorization: Bearer")
            assert answer.headers["www-authenticate"] == "Bearer"
        for headers in ({"x-api-key": "first"}, {"authorization": "Bearer second"}):
            assert (await web.post("/ingest/a", content=b"1", headers=headers)).status_code == 200

    assert len(scene(work, api_keys=["first", "second"]).frames) == 2


def test_back_pressure_is_429_and_a_late_commit_503() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        journal.fill()
        late = await web.post("/ingest/a", content=b"late")
        assert error(late) == (503, "not yet durable; send again, with an Idempotency-Key")
        assert late.headers["retry-after"] == "5"
        flood = [web.post("/ingest/a", content=b"x" * 4_000_000) for _ in range(24)]
        answers = await asyncio.gather(*flood)
        assert {answer.status_code for answer in answers} == {429, 503}
        put_off = next(answer for answer in answers if answer.status_code == 429)
        assert put_off.headers["retry-after"] == "1"
        journal.drain()
        await until(lambda: journal.frames)
        assert journal.frames[0].payload == b"late"
        await until(lambda: not source.gather.under_pressure)
        assert (await web.post("/ingest/a", content=b"again")).status_code == 200

    scene(work, commit_timeout=SECOND // 2, max_frame=5_000_000)


def test_slow_heads_bodies_and_big_heads() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        body, body_writer = await raw(
            source, b"POST /ingest/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"
        )
        head, head_writer = await raw(source, b"POST /ingest/a HT")
        big, big_writer = await raw(source, b"POST /ingest/a HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")
        assert (await asyncio.wait_for(big.read(), LIMIT_S)).startswith(b"HTTP/1.1 431")
        assert b"no end of the body within 0.3 s" in await asyncio.wait_for(body.read(), LIMIT_S)
        assert b"200" not in await asyncio.wait_for(head.read(), LIMIT_S)
        for writer in (body_writer, head_writer, big_writer):
            writer.close()
        assert source._in_hand == 0
        _, cut_writer = await raw(source, b"POST /ingest/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        cut_writer.close()
        garbage, garbage_writer = await raw(source, b"\x16\x03\x01\x02\x00 nothing of ours\r\n\r\n")
        assert (await asyncio.wait_for(garbage.read(), LIMIT_S)).startswith(b"HTTP/1.1 400")
        garbage_writer.close()
        assert (await web.post("/ingest/a", content=b"good")).status_code == 200
        assert [frame.payload for frame in journal.frames] == [b"good"]
        await until(lambda: source._in_hand == 0)

    scene(work, body_timeout=300 * MILLISECOND, header_timeout=500 * MILLISECOND)


def test_connections_beyond_the_cap_wait() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        request = b"POST /ingest/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
        first, first_writer = await raw(source, request)
        second, second_writer = await raw(source, request)
        for reader in (first, second):
            assert (await asyncio.wait_for(reader.readline(), LIMIT_S)).startswith(b"HTTP/1.1 200")
        third, third_writer = await raw(source, request)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(third.readline(), 0.3)
        first_writer.close()
        assert (await asyncio.wait_for(third.readline(), LIMIT_S)).startswith(b"HTTP/1.1 200")
        second_writer.close()
        third_writer.close()

    scene(work, max_connections=2)


def test_a_stop_answers_what_waits_and_acknowledges_nothing() -> None:
    async def run() -> None:
        source, journal = receiver(), MemoryAppender()
        journal.fill()
        async with running(source, journal):
            web = await client(source)
            posts = [
                asyncio.create_task(web.post("/ingest/a", content=b"never", headers=headers))
                for headers in ({}, {"idempotency-key": "k"})
            ]
            await until(lambda: len(source._pending) == 2)
        for post in posts:
            assert (await post).status_code == 503
        await web.aclose()
        assert journal.frames == []
        assert source.status.state == "stopped"

    asyncio.run(run())


def test_a_journal_that_is_gone_ends_the_receiver() -> None:
    async def run(headers: dict[str, str]) -> None:
        source = receiver()
        journal = MemoryAppender(failure=JournalError("the journal is gone"))
        task = asyncio.create_task(source.run(journal, asyncio.Event()))
        web = await client(source)
        answer = await web.post("/ingest/a", content=b"1", headers=headers)
        assert error(answer) == (503, "the journal is away")
        with pytest.raises(JournalError, match="gone"):
            await asyncio.wait_for(task, LIMIT_S)
        await web.aclose()

    asyncio.run(run({}))
    asyncio.run(run({"idempotency-key": "k"}))


def test_an_address_in_use_is_tried_again() -> None:
    async def run() -> None:
        holder = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = holder.sockets[0].getsockname()[1]
        source = HttpReceiver("ingest", HttpConfig(listen=f"127.0.0.1:{port}"))
        async with running(source, MemoryAppender()):
            await until(lambda: source.status.state == "disconnected")
            assert source.status.detail == f"cannot listen on 127.0.0.1:{port}: Address already in use"
            holder.close()
            await holder.wait_closed()
            await until(lambda: source.status.state == "connected")

    asyncio.run(run())


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    ours.issue("server")
    ours.issue("device")
    theirs.issue("stranger")

    async def run() -> None:
        config = HttpConfig(
            listen=f"127.0.0.1:{free_port()}",
            tls=True,
            cert_file="server.pem",
            key_file="server.key",
            ca_file="ours.pem",
        )
        source, journal = HttpReceiver("ingest", config, tmp_path), MemoryAppender()
        async with running(source, journal):
            async with await client(source, verify=ours.client("device")) as web:
                assert (await web.post("/ingest/a", content=b"1")).status_code == 200
            for context in (ours.client(None), ours.client("stranger"), theirs.client("stranger")):
                async with await client(source, verify=context) as web:
                    with pytest.raises((httpx.TransportError, ssl.SSLError)):
                        await web.post("/ingest/a", content=b"2")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{source.port}") as web:
                with pytest.raises(httpx.TransportError):
                    await web.post("/ingest/a", content=b"3")
        assert [frame.payload for frame in journal.frames] == [b"1"]

    asyncio.run(run())


def test_tls_files_that_are_none(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    ours.issue("server")
    ours.issue("other")
    (tmp_path / "empty.pem").write_text("")
    for keys, text in (
        (
            {"cert_file": "no.pem", "key_file": "server.key"},
            f"cert_file: {tmp_path}/no.pem: No such file or directory",
        ),
        (
            {"cert_file": "server.pem", "key_file": "other.key"},
            "cert_file, key_file: not a certificate with its key (key values mismatch)",
        ),
        (
            {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "empty.pem"},
            f"ca_file: {tmp_path}/empty.pem: no certificate in it (no certificate or crl found)",
        ),
        ({}, "tls: a server needs cert_file and key_file"),
    ):
        source = HttpReceiver(
            "ingest", HttpConfig(listen=f"127.0.0.1:{free_port()}", tls=True, **keys), tmp_path
        )
        with pytest.raises(ConfigError) as told:
            asyncio.run(source.run(MemoryAppender(), asyncio.Event()))
        assert str(told.value) == text


def test_every_answer_is_json() -> None:
    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        for path in ("/", "/ingest/a"):
            answer = await web.post(path, content=b"")
            assert answer.headers["content-type"] == "application/json"
            json.loads(answer.text)

    scene(work)


def test_a_proxy_that_drips_cuts_and_half_opens() -> None:
    body = b"\n".join(b"line %03d" % number for number in range(50))
    head = {"content-type": "application/jsonl", "idempotency-key": "k"}

    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        async with Proxy(source.port) as proxy:
            there = f"http://127.0.0.1:{proxy.port}/ingest/a"
            proxy.cut_after = 300  # in the body: nothing of it is taken
            async with httpx.AsyncClient(timeout=LIMIT_S) as cut:
                with pytest.raises(httpx.HTTPError):
                    await cut.post(there, content=body, headers=head)
            await until(lambda: source._in_hand == 0)
            assert journal.frames == []
            proxy.cut_after, proxy.piece, proxy.delay_s = None, 7, 0.0005  # drips
            async with httpx.AsyncClient(timeout=LIMIT_S) as slow:
                assert (await slow.post(there, content=body, headers=head)).json() == {"accepted": 50}
            assert len(journal.frames) == 50
            proxy.piece, proxy.delay_s = 65_536, 0.0
            journal.fill()
            impatient = httpx.Timeout(LIMIT_S, read=2)  # the answer is lost on its way
            async with httpx.AsyncClient(timeout=impatient) as deaf:
                posting = asyncio.create_task(
                    deaf.post(there, content=b"once", headers={"idempotency-key": "x"})
                )
                await until(lambda: source._pending)
                proxy.half_open()
                journal.drain()
                with pytest.raises(httpx.HTTPError):
                    await posting
        again = await web.post("/ingest/a", content=b"once", headers={"idempotency-key": "x"})
        assert again.json() == {"accepted": 1}
        assert [frame.payload for frame in journal.frames[50:]] == [b"once"]

    scene(work)


def test_a_large_batch_is_split_into_entries_in_order() -> None:
    lines = [b"%d" % number * (1 + number % 40) for number in range(30_000)]

    async def work(source: HttpReceiver, journal: MemoryAppender, web: httpx.AsyncClient) -> None:
        for _ in range(2):
            head = {"content-type": "application/jsonl", "idempotency-key": "large"}
            assert (await web.post("/ingest/a", content=b"\n".join(lines), headers=head)).status_code == 200
        assert [frame.payload for frame in journal.frames] == lines
        assert len(journal.appends) > 3
        assert max(journal.appends) <= 8192

    scene(work)
