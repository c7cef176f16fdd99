"""A plant of several shards that runs as real processes, and devices that post to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from connectors.journal.reader import JournalReader
from flows.shards import shard_folders
from flows.status import read_status
from operators.jit import warm_up
from tests.ports import free_port
from tests.waiting import LIMIT_S, until


class Reading(NamedTuple):
    """One reading on its way: the device's hub, its event time in ms, and its metrics."""

    device: str
    hub: str
    at: int
    metrics: dict[str, float]

    @property
    def topic(self) -> str:
        return f"iotlink/dev/{self.hub}/{self.device}/periodic/pub/telemetry/json"

    @property
    def payload(self) -> str:
        return json.dumps({"device_timestamp": self.at, "data": {"metrics": self.metrics}})


class ShardedPlant:
    """`penstock run` over a folder with a source `ingest` of kind http; `with` stops it."""

    def __init__(self, folder: Path, files: Mapping[str, str], *, engine: str = "flows.cli") -> None:
        """engine: the module that `run` is asked of."""
        self.engine = engine
        warm_up()  # into the cache, so that no process of the plant compiles
        self.folder, self.data = folder / "plant", folder / "data"
        self.log = folder / "run.log"
        names = ("INGEST_PORT", "HISTORIAN_PORT", "SERVER_PORT")
        self.environ = {**os.environ, **{name: str(free_port()) for name in names}}
        self.write(files)

    def __enter__(self) -> ShardedPlant:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._call("run"), stdout=log, stderr=log, env=self.environ)
        try:
            until(self.is_ready, "readiness")
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        assert self.process.wait(LIMIT_S) == 0

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")

    def call(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._call(command, *arguments), capture_output=True, text=True, timeout=LIMIT_S, env=self.environ
        )

    def _call(self, command: str, *arguments: str) -> list[str]:
        where = ["--data", str(self.data)] if command != "replay" else []
        module = self.engine if command == "run" else "flows.cli"
        return [sys.executable, "-m", module, command, str(self.folder), *arguments, *where]

    def is_ready(self) -> bool:
        """Asked of the server, as an operator would."""
        assert self.process.poll() is None, self.log.read_text("utf-8")
        try:
            address = f"http://127.0.0.1:{self.environ['SERVER_PORT']}/health/ready"
            with urllib.request.urlopen(address, timeout=5) as answer:
                return bool(json.loads(answer.read())["ready"])
        except (OSError, urllib.error.URLError):
            return False

    def kill(self, component: str) -> None:
        """SIGKILL, at whatever it is doing, if it runs."""
        with suppress(ProcessLookupError):
            os.kill(read_status(self.data)[component]["pid"], signal.SIGKILL)

    def post(self, topic: str, payload: str, key: str) -> None:
        """Until it is accepted, however often the connection or the journal is lost."""
        address = f"http://127.0.0.1:{self.environ['INGEST_PORT']}/ingest/{quote(topic)}"
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        asked = urllib.request.Request(address, payload.encode(), headers)

        def is_accepted() -> bool:
            try:
                with urllib.request.urlopen(asked, timeout=10) as answer:
                    return bool(answer.status == 200)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
            except OSError:
                pass
            return False

        until(is_accepted, "an acknowledgement")

    def query(self, sql: str) -> list[list[Any]]:
        """Rows of the historian."""
        address = f"http://127.0.0.1:{self.environ['HISTORIAN_PORT']}/"
        body = f"{sql} FORMAT JSONCompactEachRow".encode()
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=LIMIT_S) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]

    def has_rows(self, table: str, count: int) -> bool:
        """Whether a table of the historian has just so many different rows."""
        return self.query(f"SELECT count() FROM {table} FINAL") == [[count]]

    def events(self) -> list[dict[str, Any]]:
        """Those of every shard's alarms.jsonl."""
        files = [folder / "alarms.jsonl" for folder in shard_folders(self.data)]
        return [json.loads(line) for path in files if path.exists() for line in path.read_text().splitlines()]

    def applied(self) -> list[list[str]]:
        """The apply ids that each shard's journal holds."""
        found = []
        for folder in shard_folders(self.data):
            with closing(JournalReader(folder / "journal")) as reader:
                found.append([one.apply_id for one in reader.history()])
        return found


def replayed(plant: ShardedPlant, folder: Path, readings: Sequence[Reading], lag_ms: int) -> Path:
    """What one shard makes of the same frames, each received so long after its event time."""
    recording = folder / "recording.jsonl"
    with recording.open("w", encoding="utf-8") as file:
        newest = 0
        for one in readings:
            newest = max(newest, one.at + lag_ms)
            line = {"ingest_ts": newest, "source": "ingest", "topic": one.topic, "payload": one.payload}
            file.write(json.dumps(line) + "\n")
    done = plant.call("replay", "--input", str(recording), "--output", str(folder / "replayed"))
    assert done.returncode == 0, done.stderr
    return folder / "replayed"
