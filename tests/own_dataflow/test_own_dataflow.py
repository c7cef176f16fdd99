"""Connectors as sources of a dataflow of one's own: the README's example against a real broker, killed
and started again, and what a source says of a wrong start."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import TestingSink, run_main

from connectors import bytewax_source
from connectors.errors import ConfigError, JournalError
from connectors.files import FilesConfig, FilesSource
from connectors.tcp import TcpConfig, TcpSource
from connectors.tcp.config import JsonLines
from flows.broker import Broker, start_broker
from flows.wiring import SOURCES
from operators.batch import FrameBatch
from operators.spec import MILLISECOND
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.waiting import LIMIT_S, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    need_mosquitto()
    one = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    yield one
    one.stop()


def processes(folder: Path, module: str = "") -> list[int]:
    """The processes that serve a folder, or those of a module among them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except (OSError, UnicodeDecodeError):  # it ended meanwhile, or is none of ours
            continue
        if str(folder) in words and (not module or module in words):
            found.append(int(path.parent.name))
    return found


def _hears_interrupts() -> None:
    """As at a terminal: what a shell starts in the background ignores SIGINT, and all that it starts does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Example:
    """The README's dataflow as a program in a folder, and the lines that it printed."""

    def __init__(self, folder: Path, port: int) -> None:
        section = (ROOT / "README.md").read_text().partition("## Your own dataflow")[2]
        code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
        assert code is not None
        assert "port=1883" in code[1]
        self.folder = folder
        self.program = folder / "own.py"
        self.program.write_text(code[1].replace("port=1883", f"port={port}"))
        self.lines: list[str] = []

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(self.program)],
            cwd=self.folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_hears_interrupts,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                self.lines.append(line.rstrip("\n"))

    def state(self) -> str:
        try:
            status = json.loads((self.folder / "own-journal/run/receiver-line1.json").read_bytes())
        except (OSError, ValueError):
            return ""
        return str(status["state"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(LIMIT_S)


def test_the_example_of_the_readme_loses_nothing_over_sigkill(tmp_path: Path, broker: Broker) -> None:
    example = Example(tmp_path, broker.address[1])
    example.start()
    until(lambda: example.state() in ("connected", "silent"), "the connection")
    publisher = Publisher(broker)
    publisher.send([b"%d" % n for n in range(500)])
    publisher.wait()
    until(lambda: "plant/press-01 499" in example.lines, "the last message")
    assert example.lines == [f"plant/press-01 {n}" for n in range(500)]

    example.kill()
    until(lambda: not processes(tmp_path / "own-journal"), "the end of journal and receiver")
    publisher.send([b"%d" % n for n in range(500, 700)])  # the broker keeps them for the session
    publisher.wait()
    example.start()
    publisher.send([b"%d" % n for n in range(700, 1000)])
    publisher.wait()
    until(lambda: "plant/press-01 999" in example.lines, "the last message after the restart")
    example.kill()
    publisher.close()
    assert set(example.lines) == {f"plant/press-01 {n}" for n in range(1000)}
    until(lambda: not processes(tmp_path / "own-journal"), "the end of journal and receiver")


def test_killed_children_come_back_and_an_interrupt_ends_them(tmp_path: Path, broker: Broker) -> None:
    example = Example(tmp_path, broker.address[1])
    example.start()
    until(lambda: example.state() in ("connected", "silent"), "the connection")
    publisher = Publisher(broker)
    for part, module in enumerate(("flows.receiver", "connectors.journal.process")):
        publisher.send([b"%d" % n for n in range(100 * part, 100 * part + 100)])
        publisher.wait()
        (pid,) = processes(tmp_path / "own-journal", module)
        os.kill(pid, signal.SIGKILL)
    publisher.send([b"%d" % n for n in range(200, 300)])
    publisher.wait()
    expected = {f"plant/press-01 {n}" for n in range(300)}
    until(lambda: expected <= set(example.lines), "every message")
    publisher.close()
    example.process.send_signal(signal.SIGINT)
    example.process.wait(LIMIT_S)
    assert not processes(tmp_path / "own-journal")


class _Seen(list[Any]):
    """Payloads that came out; sets `stop` when there are `enough`."""

    def __init__(self, enough: int, stop: threading.Event) -> None:
        super().__init__()
        self._enough, self._stop = enough, stop

    def take(self, batch: FrameBatch) -> list[bytes]:
        payloads = [payload for _, payload in batch.frames()]
        self.extend(payloads)
        if len(self) >= self._enough:
            self._stop.set()
        return payloads


def run_files(folder: Path, journal: Path, enough: int) -> list[bytes]:
    stop = threading.Event()
    seen = _Seen(enough, stop)
    flow = Dataflow("own")
    config = FilesConfig(watch=str(folder), settle=MILLISECOND, poll=10 * MILLISECOND)
    batches = op.input("archive", flow, FilesSource(config, journal=journal, stop=stop))
    op.output("out", op.flat_map("payloads", batches, seen.take), TestingSink([]))
    run_main(flow, epoch_interval=timedelta(milliseconds=50))
    return seen


def test_a_stopped_dataflow_leaves_no_process_behind(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    journal = tmp_path / "journal"
    assert run_files(folder, journal, 3) == [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}']
    assert not processes(journal)
    # without recovery: from the oldest that the journal keeps; the file is not read twice
    (folder / "b.jsonl").write_text('{"b": 4}\n')
    assert run_files(folder, journal, 4) == [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}', b'{"b": 4}']
    assert not processes(journal)


def test_the_configuration_is_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text("1\n")
    run_files(folder, tmp_path / "journal", 1)
    run = tmp_path / "journal/run"
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "source-archive.json").stat().st_mode) == 0o600


@contextmanager
def ends_with(kind: type[Exception], words: str) -> Iterator[None]:
    """The dataflow ends with this error, which Bytewax tells as the cause of its own."""
    with pytest.raises(BytewaxRuntimeError) as ended:
        yield
    cause = ended.value.__cause__
    assert type(cause) is kind
    assert words in str(cause)


def run_tcp(journal: Path, listen: str, step: str = "line") -> None:
    flow = Dataflow("own")
    source = TcpSource(TcpConfig(listen=listen, framing=JsonLines()), journal=journal)
    op.output("out", op.input(step, flow, source), TestingSink([]))
    run_main(flow)


def test_what_the_receiver_refuses_ends_the_dataflow_with_its_words(tmp_path: Path) -> None:
    with ends_with(ConfigError, "'nowhere' is no host:port"):
        run_tcp(tmp_path / "journal", "nowhere")
    assert not processes(tmp_path / "journal")


def test_a_step_whose_name_is_none_of_a_source(tmp_path: Path) -> None:
    with ends_with(ConfigError, "'line 1' names a source"):
        run_tcp(tmp_path / "journal", "127.0.0.1:0", "line 1")


def test_a_journal_belongs_to_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytewax_source, "REFUSED_S", 1.0)
    journal = tmp_path / "journal"
    other = subprocess.Popen([sys.executable, "-m", "connectors.journal.process", str(journal)], cwd=ROOT)
    try:
        until((journal / "journal").exists, "the other journal")
        with ends_with(JournalError, "another journal process serves"):
            run_tcp(journal, "127.0.0.1:0")
        assert not (journal / "logs/receiver-line.jsonl").exists()
    finally:
        other.terminate()
        other.wait()
    assert not processes(journal)


def test_a_configuration_of_another_kind(tmp_path: Path) -> None:
    config: Any = FilesConfig(watch=".")
    with pytest.raises(ConfigError, match=r"TcpSource takes a TcpConfig, not FilesConfig\("):
        TcpSource(config, journal=tmp_path)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_a_plant_is_a_source(kind: str) -> None:
    module = importlib.import_module(f"connectors.{kind}")
    assert getattr(module, f"{kind.capitalize()}Source").kind is SOURCES[kind].config
    with pytest.raises(AttributeError, match=f"module 'connectors.{kind}' has no attribute 'Sink'"):
        _ = module.Sink
