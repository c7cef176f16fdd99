"""Connectors as Bytewax sources, for a dataflow of one's own.

    op.input("line1", flow, MqttSource(MqttConfig(host="127.0.0.1", subscribe=["plant/#"]), journal="line1"))

Such a source runs the same two processes as a plant: a journal and the connector's receiver, which
acknowledges a frame only when the journal has it on disk. The dataflow reads the journal and goes on
at the entry of its last committed epoch. The name of the step is the source's name; with the name of
the flow it names the session at a broker, so both have to stay as they are.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec
from bytewax.inputs import AbortExecution, FixedPartitionedSource, StatefulSourcePartition

from connectors.backoff import Backoff
from connectors.errors import ConfigError, JournalError, PenstockError
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.journal import wire
from connectors.journal.reader import JournalReader
from connectors.journal.source import PARTITION, JournalSource, Stop
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcuaConfig
from connectors.tcp.config import TcpConfig
from operators.batch import FrameBatch

START_S: Final = 30.0  # for the journal's first sign of life
REFUSED_S: Final = 15.0  # a journal that another process serves: that one may be about to end
WATCH_S: Final = 0.25
STEADY_S: Final = 60.0  # a child that ran so long begins with the first pause again
STOP_S: Final = 10.0  # then SIGKILL; a receiver ends within 5 s by itself
LAST_BYTES: Final = 4096
CONFIG_WRONG: Final = 1  # exit code of a receiver
PR_SET_PDEATHSIG: Final = 1

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PEER: Final = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED
_libc = ctypes.CDLL(None, use_errno=True)

log = logging.getLogger(__name__)
Config = TypeVar("Config")


def _begin_child(parent: int) -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be watched
        os._exit(0)


class _Child:
    """One process that ends with this one; restarted with back-off."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._log = log
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = self._next_start = 0.0
        self.failing_since: float | None = None

    def start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=partial(_begin_child, os.getpid()),
            )
        self._started_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def watch(self) -> int | None:
        """Look once: its exit code where it has just ended; started again once its pause is over."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._next_start:
                self.start()
            return None
        code = self._process.poll()
        if now - self._started_at > STEADY_S:
            self._backoff.reset()
            self.failing_since = None
        if code is not None:
            self._process = None
            self._next_start = now + self._backoff.next()
            self.failing_since = now if self.failing_since is None else self.failing_since
        return code

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """What the last line of its log says."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - LAST_BYTES))
                return str(json.loads(file.read().splitlines()[-1])["event"])
        except (OSError, ValueError, LookupError, TypeError):  # no log, or the trace of a crash
            return f"see {self._log}"


class _Children:
    """The journal's and the receiver's process of one source."""

    def __init__(self, data: Path, plant: str, name: str, config: Any, max_bytes: int) -> None:
        self._data = data
        self._owner = os.getpid()
        self._looked_at = 0.0
        file = _write_config(data, plant, name, config)
        self._journal = _Child(
            "connectors.journal.process",
            (str(data), "--max-bytes", str(max_bytes)),
            data / "logs" / "journal.jsonl",
        )
        # by name: the connectors import nothing of the flows
        self._receiver = _Child(
            "flows.receiver",
            (str(data), name, "--config", str(file)),
            data / "logs" / f"receiver-{name}.jsonl",
        )

    def start(self) -> int:
        """Both run; returns the journal's oldest entry. Raises JournalError."""
        self._journal.start()
        until = time.monotonic() + START_S
        # only into a journal of our own: another source's would take these frames as its
        while not self._is_own_journal():
            self._watch_journal()
            if time.monotonic() > until:
                raise JournalError(f"the journal does not answer: {self._journal.last_words()}")
            time.sleep(0.01)
        self._receiver.start()
        with closing(JournalReader(self._data / "journal")) as reader:
            return reader.oldest()

    def watch(self) -> None:
        """Start again what has ended. Raises where that cannot help: ConfigError, JournalError."""
        now = time.monotonic()
        if now - self._looked_at < WATCH_S:
            return
        self._looked_at = now
        self._watch_journal()
        code = self._receiver.watch()
        if code == CONFIG_WRONG:
            raise ConfigError(self._receiver.last_words())
        if code is not None:
            log.warning("the receiver ended (%d); starting again: %s", code, self._receiver.last_words())

    def stop(self) -> None:
        """The receiver first, so that what it has in hand can still become durable."""
        if os.getpid() == self._owner:  # not in a fork of the dataflow's process
            self._receiver.stop()
            self._journal.stop()

    def _is_own_journal(self) -> bool:
        """Whether the journal that answers is the process that was started here."""
        try:
            with wire.connect(wire.socket_path(self._data), 1.0) as peer:
                told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        except OSError:
            return False
        return bool(_PEER.unpack(told)[0] == self._journal.pid)

    def _watch_journal(self) -> None:
        code = self._journal.watch()
        if code is None:
            return
        words, since = self._journal.last_words(), self._journal.failing_since
        # its own refusal (exit 3); a signal is an accident, after which it is started again
        if code > 0 and since is not None and time.monotonic() - since > REFUSED_S:
            raise JournalError(words)
        log.warning("the journal ended (%d); starting again: %s", code, words)


def _write_config(data: Path, plant: str, name: str, config: Any) -> Path:
    """What the receiver reads at its start, passwords included: for the owner alone."""
    run = data / "run"
    run.mkdir(parents=True, exist_ok=True)
    run.chmod(0o700)
    path = run / f"source-{name}.json"
    body = {"plant": plant, "source": name, "config": config, "folder": str(Path.cwd())}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(body))
    os.replace(beside, path)
    return path


class _Partition(StatefulSourcePartition[FrameBatch, int]):
    """The journal's partition with the processes that fill the journal."""

    def __init__(self, children: _Children, source: JournalSource, step_id: str, state: int | None) -> None:
        self._children = children
        # Bytewax does not call `close` where a dataflow is aborted
        self._end = weakref.finalize(self, children.stop)
        try:
            source.start = children.start()
            self._journal = source.build_part(step_id, PARTITION, state)
        except PenstockError:
            self._end()
            raise

    def next_batch(self) -> Iterable[FrameBatch]:
        try:
            self._children.watch()
            found = self._journal.next_batch()
        except (AbortExecution, PenstockError):
            self.close()
            raise
        return [item.frames for _, item in found if len(item.frames)]

    def next_awake(self) -> datetime:
        return self._journal.next_awake()

    def snapshot(self) -> int:
        return self._journal.snapshot()

    def close(self) -> None:
        self._end()
        self._journal.close()


class ReceiverSource(FixedPartitionedSource[FrameBatch, int], Generic[Config]):
    """Items are `FrameBatch`es in the order of the journal: columns for fast steps, `frames()` for
    easy ones. How frames are cut into batches carries no meaning.

    config: the keys of the connector's sample.yaml, durations in nanoseconds; relative paths in it
    are of the working directory. journal: the data directory of this source alone; it is made if it
    is not there, holds the journal, its processes' logs and the configuration with its passwords
    (readable by the owner). max_bytes: of the journal; while it is full, nothing is acknowledged.
    stop: once set, the dataflow ends after the next committed epoch.

    With Bytewax recovery every frame that was acknowledged is emitted, after a crash those behind
    the last committed epoch again; call `flows.recovery.prepare_recovery` before each start. Without
    recovery a start begins at the oldest entry that the journal still keeps. Both processes are
    started again when they end, and end with this one, however it ends. What a connector refuses or
    flags is emitted, too: see `FrameBatch.flags` (FRAME_RETAINED) and the headers `resync` and
    `too_large` of addresses.

    The dataflow ends with ConfigError for a configuration that the receiver refuses, or a step name
    that is none of a source; with JournalError where another process serves the journal. (Bytewax
    raises an error of its own, whose `__cause__` it is.)
    """

    kind: ClassVar[type]

    def __init__(
        self,
        config: Config,
        *,
        journal: str | os.PathLike[str],
        max_bytes: int = 20_000_000_000,
        stop: Stop | None = None,
    ) -> None:
        if not isinstance(config, self.kind):
            raise ConfigError(f"{type(self).__name__} takes a {self.kind.__name__}, not {config!r:.60}")
        self.config = config
        self.max_bytes = max_bytes
        self._journal = JournalSource(Path(journal).absolute(), stop=stop)

    def describe(self) -> dict[str, int]:
        """Where the source stands in its journal (see `JournalSource.describe`)."""
        return self._journal.describe()

    def list_parts(self) -> list[str]:
        return [PARTITION]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        flow, _, rest = step_id.partition(".")
        name = rest.rpartition(".")[2]
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"'{name}' names a source; use at most 64 letters, digits, '_' and '-' as the step's name"
            )
        children = _Children(self._journal.data, flow, name, self.config, self.max_bytes)
        return _Partition(children, self._journal, step_id, resume_state)


class MqttSource(ReceiverSource[MqttConfig]):
    """Messages of an MQTT broker; PUBACK after the journal's commit."""

    kind = MqttConfig


class TcpSource(ReceiverSource[TcpConfig]):
    """Frames of devices that connect to a TCP server."""

    kind = TcpConfig


class HttpSource(ReceiverSource[HttpConfig]):
    """What devices and programs post; answered after the journal's commit."""

    kind = HttpConfig


class FilesSource(ReceiverSource[FilesConfig]):
    """Rows and lines of a folder's files, each file once."""

    kind = FilesConfig


class OpcuaSource(ReceiverSource[OpcuaConfig]):
    """Changes of an OPC UA server's nodes."""

    kind = OpcuaConfig


class KafkaSource(ReceiverSource[KafkaConfig]):
    """Messages of Kafka topics, each once."""

    kind = KafkaConfig
