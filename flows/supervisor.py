"""The supervisor: one process that starts, watches, restarts and stops the others.

Order of starting: journal and flow; the plant is applied (a journal entry), which the flow waits
for; drainers of alarms and receivers, which wait for the journal; once the flow is ready, the
historian, its drainer and the server. Stopping goes from the receivers back to the journal.

The supervisor does no work of its own and has one thread, so that nothing it watches can take it
down; when it is killed, its children end with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from connectors.errors import ConfigError, JournalError, PenstockError
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.reader import JournalReader
from flows.health import readiness
from flows.plant_file import Plant
from flows.processes import Child
from flows.status import read_status, write_atomically

STOP_SECONDS = 10.0
# the way of an alarm; the others stand back while there are more busy processes than processors
PROMPT = ("receiver-", "flow", "drainer-alarms-file", "drainer-kafka")
STANDS_BACK = 5
WATCH_SECONDS = 0.05
JOURNAL_START_SECONDS = 30.0
UNWELL_SECONDS = 4.0  # a component that is away for less is not worth a line
FLOW_READY_SECONDS = 10.0


class Supervisor:
    """The processes of one running plant over one data directory."""

    def __init__(self, plant: Plant, folder: Path, data: Path, *, say: Callable[[str], None]) -> None:
        self.plant = plant
        self.folder = folder
        self.data = data
        self.say = say
        self.children: list[Child] = []
        self.stop_signals = 0
        self.started_ms = int(time.time() * 1000)
        self._lock: IO[str] | None = None
        self._looked_at = 0.0
        self._unwell: dict[str, float] = {}  # since when
        self._told: set[str] = set()
        self._environment = dict(os.environ, PENSTOCK_DATA=str(data))
        self._environment.pop("BYTEWAX_DATAFLOW_API_ENABLED", None)  # would open an unauthenticated port

    def run(
        self,
        *,
        apply: bool,
        until: Callable[[], bool] = lambda: False,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Start everything, call `started`, watch until a signal or `until()`, stop everything.

        Raises `ConfigError` when the folder differs from the applied plant and `apply` is false,
        and `PenstockError` when another supervisor holds the data directory.
        """
        self.start(apply=apply)
        try:
            started()
            while not self.stop_signals and not until():
                self.watch()
                time.sleep(WATCH_SECONDS)
        finally:
            self.stop()

    def start(self, *, apply: bool) -> None:
        """Everything up to the receivers; signals are taken over."""
        self._take_lock()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        (self.data / "run").mkdir(parents=True, exist_ok=True)
        os.chmod(self.data / "run", 0o700)
        is_applied = self._is_applied(apply)
        self._write_configs()
        self._add("journal", "connectors.journal.process", ["--max-bytes", str(self.plant.journal.max)], 0)
        self._add("flow", "flows.flow", [], 1)
        self._start_rank(0)
        self._start_rank(1)  # it waits for the plant, and takes the longest to be ready
        if not is_applied:
            try:
                self._apply_plant()
            except PenstockError:
                self.stop()
                raise
        if self.plant.historian.url == "embedded":
            self._add("historian", "flows.historian", ["--listen", self.plant.historian.listen], 2)
        for target in self._targets():
            self._add(
                f"drainer-{target}",
                "flows.drainer",
                [target, "--config", str(self._target_file(target))],
                3,
            )
        self._add("server", "flows.server", ["--listen", self.plant.server.listen], 4)
        for source in self.plant.sources:
            self._add(
                f"receiver-{source}",
                "flows.receiver",
                [source, "--config", str(self._source_file(source))],
                5,
            )
        for child in self.children:  # the way of an alarm first, the others once the flow is ready
            if child.pid is None and not child.nice:
                child.start(self._environment)
        self._await_flow()
        for child in self.children:
            if child.pid is None and child.nice and not self.stop_signals:
                child.start(self._environment)
        self._report()

    def _await_flow(self) -> None:
        """Until the flow is ready, has ended, or has taken so long that the others must not wait."""
        until = time.monotonic() + FLOW_READY_SECONDS
        flow = self.child("flow")
        while flow.pid is not None and not self.stop_signals and time.monotonic() < until:
            if read_status(self.data).get("flow", {}).get("pid") == flow.pid:
                return
            self._report()
            time.sleep(WATCH_SECONDS)

    def watch(self) -> None:
        """Look at every child once; restart what has ended."""
        for child in self.children:
            happened = child.watch(self._environment)
            if happened:
                self.say(happened)
        self._report()
        self._tell_unwell()

    def stop(self) -> None:
        """Receivers first, journal last; each has ten seconds, and a second signal kills all."""
        for rank in sorted({child.order for child in self.children}, reverse=True):
            group = [child for child in self.children if child.order == rank]
            for child in group:
                child.terminate()
            until = time.monotonic() + STOP_SECONDS
            for child in group:
                while child.pid is not None and time.monotonic() < until and self.stop_signals < 2:
                    time.sleep(0.02)
                if not child.wait(0.01):
                    self.say(f"{child.name} did not stop within {STOP_SECONDS:.0f} s and was killed")
        self._report()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def child(self, name: str) -> Child:
        """The component of that name."""
        return next(child for child in self.children if child.name == name)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.stop_signals += 1

    def _take_lock(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self._lock = (self.data / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PenstockError(
                f"{self.data} is in use by another running plant; stop that one, or choose --data DIR"
            ) from error

    def _add(self, name: str, module: str, arguments: list[str], order: int) -> None:
        log = self.data / "logs" / f"{name}.jsonl"
        nice = 0 if order == 0 or name.startswith(PROMPT) else STANDS_BACK
        self.children.append(Child(name, module, [str(self.data), *arguments], order, log, nice))

    def _start_rank(self, rank: int) -> None:
        for child in self.children:
            if child.order == rank:
                child.start(self._environment)

    def _targets(self) -> list[str]:
        targets = ["alarms-file", "historian"]
        return [*targets, "kafka"] if self.plant.sinks.alarms.bootstrap else targets

    def _source_file(self, name: str) -> Path:
        return self.data / "run" / f"source-{name}.json"

    def _target_file(self, name: str) -> Path:
        return self.data / "run" / f"target-{name}.json"

    def _write_configs(self) -> None:
        """Resolved configuration for the children; readable by the owner alone."""
        for name, config in self.plant.sources.items():
            body = msgspec.to_builtins(
                {
                    "plant": self.plant.name,
                    "source": name,
                    "config": config,
                    "folder": str(self.folder.resolve()),
                }
            )
            write_atomically(self._source_file(name), json.dumps(body).encode(), mode=0o600)
        named = {self._target_file(name) for name in self._targets()}
        for left in set((self.data / "run").glob("target-*.json")) - named:
            left.unlink()  # the output log keeps records for every target that has such a file
        for name in self._targets():
            body = msgspec.to_builtins(
                {
                    "plant": self.plant.name,
                    "historian": self.plant.historian,
                    "alarms": self.plant.sinks.alarms,
                    "products": {
                        product.productId: [[m.name, m.type] for m in product.metrics.values()]
                        for product in self.plant.products.values()
                    },
                    "windows": sorted({w.every for p in self.plant.products.values() for w in p.windows}),
                }
            )
            write_atomically(self._target_file(name), json.dumps(body).encode(), mode=0o600)

    def _is_applied(self, apply: bool) -> bool:
        """Whether the folder is the applied plant. Raises `ConfigError`, with a plan, when another one
        is and the folder is not to be applied."""
        try:
            with closing(JournalReader(self.data / "journal")) as reader:
                applied = reader.last_plant()
        except JournalError:  # there is no journal yet
            return False
        if applied is None or applied.sha256 == self.plant.sha256:
            return applied is not None
        if not apply:
            raise ConfigError(plan(applied.files, self.plant.files))
        return False

    def _apply_plant(self) -> None:
        """Bring the folder into the journal as the applied plant."""
        with self._journal() as journal:
            journal.control("plant", {"sha256": self.plant.sha256, "files": dict(self.plant.files)})

    def _journal(self) -> BlockingJournalClient:
        """A connection to the journal process, once it answers."""
        until = time.monotonic() + JOURNAL_START_SECONDS
        child = self.child("journal")
        while True:
            if child.pid is None:
                raise PenstockError(f"the journal process did not start; see {child.log}")
            try:
                return BlockingJournalClient(self.data, "supervisor")
            except JournalError:
                if time.monotonic() > until:
                    raise PenstockError(f"the journal does not answer; see {child.log}") from None
                time.sleep(0.02)

    def _tell_unwell(self) -> None:
        """Say once of a component that runs that it is not well, and once that it is again."""
        now = time.monotonic()
        if now - self._looked_at < UNWELL_SECONDS / 4:
            return
        self._looked_at = now
        for name, one in readiness(self.data)["components"].items():
            well = one["ready"] and one["state"] != "target away"
            if well or one["state"] in ("starting", "ended", "stopped"):
                self._unwell.pop(name, None)
                if well and name in self._told:
                    self._told.remove(name)
                    self.say(f"{name} is well again: {one['state']}")
            elif now - self._unwell.setdefault(name, now) >= UNWELL_SECONDS and name not in self._told:
                self._told.add(name)
                self.say(f"{name}: {one['state']}; {one['detail'] or f'see logs/{name}.jsonl'}")

    def _report(self) -> None:
        body = {
            "component": "supervisor",
            "pid": os.getpid(),
            "plant": self.plant.name,
            "sha256": self.plant.sha256,
            "started_ms": self.started_ms,
            "components": {
                child.name: {
                    "state": child.state,
                    "pid": child.pid,
                    "restarts": child.restarts,
                    "last_exit": child.last_exit,
                }
                for child in self.children
            },
        }
        with suppress(OSError):  # a full disk must not take the supervisor down
            write_atomically(self.data / "run" / "supervisor.json", json.dumps(body).encode())


def plan(applied: dict[str, bytes], folder: Any) -> str:
    """What `run` says when the folder is not what is applied."""
    lines = ["the folder differs from the applied plant:"]
    for path in sorted({*applied, *folder}):
        if path not in folder:
            lines.append(f"  removed  {path}")
        elif path not in applied:
            lines.append(f"  added    {path}")
        elif applied[path] != folder[path]:
            lines.append(f"  changed  {path}")
    lines.append("rules and products whose text is the same keep their state; the others start anew.")
    lines.append("take the change in with: penstock run --apply")
    return "\n".join(lines)
