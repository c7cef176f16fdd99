"""What every source keeps, whatever its peer: the promises of `connectors/source.py`."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from connectors.fakes import MemoryAppender
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.journal.entries import FRAMES
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.journal.wire import socket_path
from connectors.mqtt.config import MqttConfig
from connectors.source import Receiver
from connectors.tcp.config import Delimiter, Fixed, JsonLines, LengthPrefix, ModbusTcp, StxEtx, TcpConfig
from flows.receiver import SourceFile, build_receiver
from flows.status import write_atomically
from operators.convert import convert
from operators.document import Node, Problems, load_yaml
from tests.conformance.subjects import CAP, SUBJECTS, Subject, ended, in_thread
from tests.receivers.running import running, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    one = SUBJECTS[request.param](tmp_path)
    name = request.function.__name__.removeprefix("test_")
    why = one.waivers.get(name)
    if why is not None:
        one.close()
        pytest.skip(f"waived: {why}")
    yield one
    one.close()


def receiver(subject: Subject, tmp_path: Path) -> Receiver:
    return build_receiver(SourceFile(plant="works", source="line", config=subject.config), tmp_path / "data")


def numbers(start: int, end: int) -> list[bytes]:
    return [b"frame %06d" % number for number in range(start, end)]


def payloads(appender: MemoryAppender) -> list[bytes]:
    return [frame.payload for frame in appender.frames]


# in this process, against a journal in memory


def test_acknowledges_only_after_durable(subject: Subject, tmp_path: Path) -> None:
    """While the journal takes nothing, a peer that speaks to the source itself is told nothing."""
    direct = not isinstance(subject.config, MqttConfig)  # a broker between has its own word

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            appender.fill()
            subject.send(numbers(0, 50))
            settling = in_thread(subject.settle)
            if direct:
                await asyncio.sleep(0.5)
                assert subject.told_safe() == 0
            appender.drain()
            await settling
            await until(lambda: len(appender.frames) == 50)
            assert subject.told_safe() == 50
        assert payloads(appender) == numbers(0, 50)

    asyncio.run(scene())


def test_what_is_not_durable_comes_again(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        settling: asyncio.Future[None]
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            appender.fill()
            subject.send(numbers(0, 50))
            settling = in_thread(subject.settle)
            await asyncio.sleep(0.5)
        assert appender.frames == []
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await settling
            await until(lambda: len(appender.frames) >= 50)
        assert payloads(appender) == numbers(0, 50)

    asyncio.run(scene())


def test_peer_returns(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            subject.send(numbers(0, 10))
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 10)
            await in_thread(subject.break_peer)
            subject.send(numbers(10, 20))
            await in_thread(subject.settle)
            await until(lambda: set(numbers(10, 20)) <= set(payloads(appender)))

    asyncio.run(scene())


def test_a_poison_frame_passes(subject: Subject, tmp_path: Path) -> None:
    """Odd bytes are somebody else's business; frames behind them come through."""
    poison = [b"\xff\xfe\x00", b'"', b"[" * 5000, b"\x00", b"z" * CAP]

    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            subject.send([*numbers(0, 5), *poison, *numbers(5, 10)])
            await in_thread(subject.settle)
            await until(lambda: len(appender.frames) == 15)
        got = payloads(appender)
        assert [payload for payload in got if payload.startswith(b"frame")] == numbers(0, 10)
        assert got[5:10] == poison

    asyncio.run(scene())


def test_silence(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "silent")
            subject.send(numbers(0, 1))
            await in_thread(subject.settle)
            await until(lambda: source.status.state == "connected")

    asyncio.run(scene())


def test_stops_within_five_seconds_while_the_journal_is_full(subject: Subject, tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(subject, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            appender.fill()
            subject.send(numbers(0, 20))
            await asyncio.sleep(0.3)
        assert source.status.state == "stopped"
        assert appender.frames == []

    asyncio.run(scene())


# as processes, against the real journal


class Processes:
    """A journal and a receiver, as the supervisor would start them."""

    def __init__(self, subject: Subject, data: Path) -> None:
        self.data = data
        self.log = data / "receiver.log"
        (data / "run").mkdir(parents=True)
        body = msgspec.json.encode({"plant": "works", "source": "line", "config": subject.config})
        write_atomically(data / "run" / "source-line.json", body, mode=0o600)
        self.journal = self._start("connectors.journal.process", str(data))
        end = time.monotonic() + 60
        while not socket_path(data).exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        self.receiver = self.start_receiver()

    def start_receiver(self) -> subprocess.Popen[bytes]:
        self.receiver = self._start("flows.receiver", str(self.data), "line")
        return self.receiver

    def wait_state(self, state: str) -> dict[str, object]:
        """A status is written once a second: `connected` may have become `silent` before it is seen."""
        wanted = (state, "silent") if state == "connected" else (state,)
        end = time.monotonic() + 60
        while True:
            try:
                status: dict[str, object] = json.loads(
                    (self.data / "run" / "receiver-line.json").read_bytes()
                )
                if status["state"] in wanted and status["pid"] == self.receiver.pid:
                    return status
            except FileNotFoundError:
                pass
            assert time.monotonic() < end, f"never {state}: {self.log.read_text()}"
            time.sleep(0.02)

    def journaled(self) -> list[bytes]:
        found: list[bytes] = []
        with JournalReader(self.data / "journal") as reader:
            start = reader.oldest()
            while entries := reader.read(start, 10_000, 64 << 20):
                frames = merge([entry for entry in entries if entry.kind == FRAMES])
                found.extend(frames.frame(row) for row in range(len(frames)))
                start = entries[-1].number + 1
        return found

    def close(self) -> None:
        for process in (self.receiver, self.journal):
            process.terminate()
        for process in (self.receiver, self.journal):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=log, stderr=log
            )


@pytest.fixture
def processes(subject: Subject, tmp_path: Path) -> Iterator[Processes]:
    both = Processes(subject, tmp_path / "data")
    yield both
    both.close()


def test_sigkill(subject: Subject, processes: Processes) -> None:
    """Six SIGKILLs at seeded moments: what was told safe is in the journal, in order."""
    draw = random.Random(20260301)
    processes.wait_state("connected")
    sent = 0
    for _ in range(6):
        for _ in range(draw.randrange(1, 4)):
            count = draw.randrange(20, 200)
            subject.send(numbers(sent, sent + count))
            sent += count
            time.sleep(draw.uniform(0.0, 0.1))
        processes.receiver.kill()
        processes.receiver.wait()
        processes.start_receiver()
        processes.wait_state("connected")
        subject.settle()
    end = time.monotonic() + 60
    while set(numbers(0, sent)) - set(found := processes.journaled()):
        assert time.monotonic() < end, f"{len(set(numbers(0, sent)) - set(found))} of {sent} lost"
        time.sleep(0.1)
    first_times = list(dict.fromkeys(found))
    assert first_times == numbers(0, sent)
    if isinstance(subject.config, FilesConfig | HttpConfig):  # each once, by the names of their appends
        assert found == numbers(0, sent)


def test_the_process_stops_within_five_seconds(subject: Subject, processes: Processes) -> None:
    status = processes.wait_state("connected")
    assert status["component"] == "receiver-line"
    processes.receiver.send_signal(signal.SIGTERM)
    assert ended(processes.receiver, 6.0) == 0
    assert processes.wait_state("stopped")


def test_secrets(subject: Subject, processes: Processes) -> None:
    """No secret is in a log, a status file or a process's arguments."""
    assert subject.secret is not None
    processes.wait_state("connected")
    processes.receiver.terminate()
    processes.receiver.wait(10)
    assert re.search('"event": "(connected to|listening on)', processes.log.read_text())
    for path in processes.data.rglob("*"):
        if path.is_file() and path.name != "source-line.json":
            assert subject.secret.encode() not in path.read_bytes(), path
    assert (processes.data / "run" / "source-line.json").stat().st_mode & 0o777 == 0o600


def test_a_broken_configuration_ends_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    body = {"plant": "works", "source": "line", "config": {"kind": "mqtt", "host": 7, "password": "s3cret"}}
    (tmp_path / "run" / "source-line.json").write_text(json.dumps(body))
    done = subprocess.run(
        [sys.executable, "-m", "flows.receiver", str(tmp_path), "line"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"Expected `str`, got `int` - at `$.config.host`" in done.stderr
    assert b"s3cret" not in done.stderr


# the files beside each source


@pytest.mark.parametrize(
    ("kind", "source", "struct"),
    [
        ("mqtt", "line1", MqttConfig),
        ("tcp", "legacy", TcpConfig),
        ("http", "ingest", HttpConfig),
        ("files", "drops", FilesConfig),
    ],
)
def test_every_option_is_in_the_sample(kind: str, source: str, struct: type[msgspec.Struct]) -> None:
    node = sample(kind).get(source)
    assert node is not None
    keys = set(node.plain())
    assert keys == {field.encode_name for field in msgspec.structs.fields(struct)} | {"kind"}
    problems = Problems()
    assert convert(node, struct, problems) is not None, problems.render()
    assert (ROOT / "connectors" / kind / "README.md").exists()


def test_every_option_of_framing_is_in_the_sample() -> None:
    for name, struct in (
        ("legacy", LengthPrefix),
        ("lines", Delimiter),
        ("scales", StxEtx),
        ("counters", Fixed),
        ("modbus", ModbusTcp),
        ("events", JsonLines),
    ):
        node = sample("tcp").get(name)
        assert node is not None
        framing = node.plain()["framing"]
        assert set(framing) == {field.encode_name for field in msgspec.structs.fields(struct)} | {"kind"}


def sample(kind: str) -> Node:
    path = ROOT / "connectors" / kind / "sample.yaml"
    problems = Problems()
    (node,) = load_yaml(path.read_text(), path.name, problems)
    assert problems.render() == ""
    sources = node.get("sources")
    assert sources is not None
    return sources
