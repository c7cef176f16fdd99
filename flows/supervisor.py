"""The supervisor: one process that starts, watches, restarts and stops the others.

Order of starting: journal and flow; the plant is applied (a journal entry), which the flow waits
for; drainers of alarms and receivers, which wait for the journal; once the flow is ready, the
historian, its drainer and the server. Stopping goes from the receivers back to the journal. What
runs is the applied plant, not the folder; when another one is applied, the processes whose start
differs are ended and started, and no others (flows/components.py is the table).

The supervisor does no work of its own and has one thread, so that nothing it watches can take it
down; when it is killed, its children end with it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from connectors.errors import JournalError, PenstockError
from connectors.journal.blocking import BlockingJournalClient
from flows.applied_plants import AppliedPlants
from flows.apply import plant_control, resolved_plant, user_name
from flows.broken_flow import BrokenFlow
from flows.change_processes import (
    STOP_SECONDS,
    Changing,
    folder_of,
    forget_targets,
    name_targets,
)
from flows.components import DRAINER, FLOW, HISTORIAN, JOURNAL, RECEIVER, SERVER, Component, components
from flows.environment_references import without_referenced
from flows.partition_journals import await_copy, taken_by
from flows.plant_file import Plant
from flows.plant_to_run import PlantToRun
from flows.processes import Child, last_error
from flows.shards import settle_shards
from flows.status import read_status, write_atomically
from flows.unwell import Unwell

# the way of an alarm; the others stand back while there are more busy processes than processors
PROMPT = ("receiver-", "flow", "drainer-alarms-file", "drainer-kafka")
STANDS_BACK = 5
STOPPING = ((RECEIVER,), (SERVER, DRAINER, FLOW), (HISTORIAN, JOURNAL))  # what ends at the same time
WATCH_SECONDS = 0.05
SAME_SIGNAL_S = 0.5
JOURNAL_START_SECONDS = 30.0
JOURNAL_QUICK_SECONDS = 2.0  # a journal on Kafka that takes longer is waited for with a server
FLOW_READY_SECONDS = 10.0
FOLLOW_SECONDS = 0.2  # how often the journal is asked whether another plant was applied


class Supervisor:
    """The processes of one running plant over one data directory."""

    def __init__(
        self, plant: Plant | None, folder: Path, data: Path, *, say: Callable[[str], None], problems: str = ""
    ) -> None:
        """plant: the folder's; None where it has errors, which `problems` tells: the applied plant can
        be run all the same."""
        self._to_run = PlantToRun(plant, problems, data, say)
        self.plant: Plant
        self.components: dict[str, Component] = {}
        self.folder = folder
        self.data = data
        self.folders = [data]  # of the shards
        self.say = say
        self.children: list[Child] = []
        self.stop_signals = 0
        self._signalled = -math.inf
        self.started_ms = int(time.time() * 1000)
        self._lock: IO[str] | None = None
        self._asked_at = 0.0
        self._entry = 0  # of the journal, at which the plant that runs was applied
        self._applied = AppliedPlants(self.folders)
        self._changing: Changing | None = None
        self._change: dict[str, Any] = {}
        self._taken: dict[int, str] = {}  # shards that another machine runs, and how that was told
        self._broken: dict[str, BrokenFlow] = {}  # by the name of the flow's process
        self._unwell = Unwell(data, say)

    def run(
        self,
        *,
        apply: bool,
        until: Callable[[], bool] = lambda: False,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Start everything, call `started`, watch until a signal or `until()`, stop everything.

        Raises `ConfigError` where there is no plant to run, or `apply` is asked for and cannot be;
        `PenstockError` when another supervisor holds the data directory.
        """
        self.start(apply=apply)
        try:
            if not self.stop_signals:
                started()
            while not self.stop_signals and not until():
                self.watch()
                time.sleep(WATCH_SECONDS)
            self.say("stopping; a second signal ends all at once")
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
        shards = self.plant.shards
        self.folders = settle_shards(self.data, shards.count, shards.by)
        self._applied = AppliedPlants(self.folders)
        self._prepare()
        self._start_rank(JOURNAL)
        if not is_applied and self.plant.journal.kind == "kafka":
            try:
                is_applied = self._catch_up(apply)
            except PenstockError:
                self.stop()
                raise
        if self.stop_signals:  # while brokers were waited for
            return
        self._start_rank(FLOW)  # it waits for the plant, and takes the longest to be ready
        if not is_applied:
            try:
                self._apply_plant("run --apply" if apply else "first start")
            except PenstockError:
                self.stop()
                raise
        for child in self.children:  # the way of an alarm first, the others once the flow is ready
            if child.pid is None and not child.nice:
                child.start(self._environment)
        self._await_flows()
        for child in self.children:
            if child.pid is None and child.nice and not self.stop_signals:
                child.start(self._environment)
        self._report()

    def _prepare(self) -> None:
        """The processes of the plant, none of them started but the journals that run already."""
        self.components = components(self.plant, self.folder, self._taken)
        name_targets(self.data, self.components.values())
        forget_targets(self.data, self.components.values())
        running = {child.name: child for child in self.children if child.pid is not None}
        self.children = [running.get(one.name) or self._child_of(one) for one in self.components.values()]
        for child in self.children:
            child.configuration = self.components[child.name].configuration()
        self._broken = {
            one.name: self._broken_of(one) for one in self.components.values() if one.rank == FLOW
        }

    def _catch_up(self, apply: bool) -> bool:
        """What is applied in journals on Kafka is known once their copies hold what stands there: the same
        as `_is_applied`, then."""
        before = self.plant.sha256
        server, waits_until = self.child("server"), time.monotonic() + JOURNAL_QUICK_SECONDS

        def goes_on() -> bool:
            if server.pid is None and time.monotonic() > waits_until:
                server.start(self._environment)  # whoever asks for health is told what is waited for
            self._report()
            return not self.stop_signals

        for shard in range(len(self.folders)):
            child = self.child(self._journal_name(shard))
            await_copy(child, partial(self._journal, shard), say=self.say, goes_on=goes_on)
        is_applied = self._is_applied(apply)
        if self.plant.sha256 != before:
            server.terminate()
            server.wait(STOP_SECONDS)  # it may listen elsewhere in the plant that is applied
            self._prepare()
        return is_applied

    def _await_flows(self) -> None:
        """Until every flow is ready or has ended, or they have taken so long that the others must not
        wait."""
        until = time.monotonic() + FLOW_READY_SECONDS
        flows = [child for child in self.children if child.order == FLOW]
        while not self.stop_signals and time.monotonic() < until:
            if (applied := self._applied.newest()) is not None:
                self._applied.spread(applied)  # a flow without a plant is never ready
            status = read_status(self.data)
            if all(one.pid is None or status.get(one.name, {}).get("pid") == one.pid for one in flows):
                return
            self._report()
            time.sleep(WATCH_SECONDS)

    def watch(self) -> None:
        """Look at every child once; restart what has ended; follow a plant that was applied."""
        self._follow()
        for child in self.children:
            if child.order == JOURNAL and (why := taken_by(self.data, child)):
                if self._changing is None:
                    self._give_up(child, why)
                continue
            broken = self._broken.get(child.name)
            if broken is not None and broken.trials is not None:
                broken.step(child, partial(self._journal, self.components[child.name].shard))
                continue
            happened = child.watch(self._environment)
            if happened:
                self.say(happened)
                if broken is not None and child.process is None:
                    broken.ended(child)
        self._report()
        self._unwell.tell()

    def stop(self) -> None:
        """Receivers first, journal last; each has ten seconds, and a second signal kills all."""
        for ranks in STOPPING:
            group = [child for child in self.children if child.order in ranks]
            for child in group:
                child.terminate()
            until = time.monotonic() + STOP_SECONDS
            for child in group:
                while child.pid is not None and time.monotonic() < until and self.stop_signals < 2:
                    time.sleep(0.02)
                if not child.wait(0.01):
                    late = f"did not stop within {STOP_SECONDS:.0f} s"
                    why = late if self.stop_signals < 2 else "was still stopping at the second signal"
                    self.say(f"{child.name} {why} and was killed")
        self._report()
        for broken in self._broken.values():
            broken.close()
        self._applied.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def child(self, name: str) -> Child:
        """The component of that name."""
        return next(child for child in self.children if child.name == name)

    def _on_signal(self, number: int, frame: Any) -> None:
        # make and timeout pass a signal on to a group that has had it: that is no second wish
        now = time.monotonic()
        if now >= self._signalled + SAME_SIGNAL_S:
            self.stop_signals += 1
            self._signalled = now

    def _take_lock(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self._lock = (self.data / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PenstockError(
                f"{self.data} is in use by another running plant; stop that one, or choose --data DIR"
            ) from error

    @property
    def _environment(self) -> dict[str, str]:
        """What the processes of this plant inherit."""
        text = self.plant.files["plant.yaml"].decode("utf-8", "replace")
        made = without_referenced(os.environ, text)
        made.pop("BYTEWAX_DATAFLOW_API_ENABLED", None)  # would open an unauthenticated port
        return {**made, "PENSTOCK_DATA": str(self.data)}

    def _child_of(self, component: Component) -> Child:
        log = self.data / "logs" / f"{component.name}.jsonl"
        nice = 0 if component.rank == JOURNAL or component.name.startswith(PROMPT) else STANDS_BACK
        arguments = [str(folder_of(self.data, component)), *component.arguments]
        told = component.configuration()
        return Child(component.name, component.module, arguments, component.rank, log, nice, told)

    def _broken_of(self, component: Component) -> BrokenFlow:
        log = self.data / "logs" / f"{component.name.replace('flow', 'quarantine')}.jsonl"
        return BrokenFlow(folder_of(self.data, component), self._environment, log, self.say)

    def _start_rank(self, rank: int) -> None:
        for child in self.children:
            if child.order == rank:
                child.start(self._environment)

    # -- the applied plant

    def _is_applied(self, apply: bool) -> bool:
        """Take the plant to run; whether it is applied already. Raises `ConfigError`."""
        chosen = self._to_run.choose(apply)
        self.plant = chosen.plant
        if chosen.entry is not None:
            self._entry = chosen.entry
        return chosen.is_applied

    def _apply_plant(self, why: str) -> None:
        """Bring the folder into the journal as the applied plant, that of the first shard before all."""
        control = plant_control(self.plant, user_name(), why)
        for shard in range(len(self.folders)):
            entry = self._apply_to(shard, control)
            self._entry = self._entry if shard else entry

    def _apply_to(self, shard: int, control: dict[str, Any]) -> int:
        """Its entry, once it is durable: brokers are waited for, and what is told twice counts once."""
        while True:
            try:
                with self._journal(shard) as journal:
                    return journal.control("plant", control)
            except JournalError as error:
                name = self._journal_name(shard)
                if self.plant.journal.kind == "local" or self.stop_signals or self.child(name).pid is None:
                    raise
                self.say(f"{name}: {error}")

    def _give_up(self, journal: Child, why: str) -> None:
        """Another machine runs the shard of a journal: here it only passes on what receivers have for it."""
        self._taken[self.components[journal.name].shard or 0] = why
        self.say(f"{journal.name}: {why}")
        after = components(self.plant, self.folder, self._taken)
        self._changing = Changing(self.components, after, self._entry, "the shard is given up")
        for name in self._changing.stops:
            if (broken := self._broken.pop(name, None)) is not None:
                broken.close()
        self._begin(self._changing)

    def _follow(self) -> None:
        """Bring the processes to the plant that was applied last, one step at a look."""
        now = time.monotonic()
        if self._changing is not None:
            self._go_on(self._changing)
            return
        if now - self._asked_at < FOLLOW_SECONDS:
            return
        self._asked_at = now
        applied = self._applied.newest()
        if applied is None:
            return
        self._applied.spread(applied)
        if applied.entry <= self._entry:
            return
        self._entry = applied.entry
        if applied.sha256 == self.plant.sha256:
            self._change = {"entry": applied.entry, "state": "done", "detail": ""}
            return
        self.say(f"applied by {applied.by or '?'}: {applied.why or 'no reason given'}")
        try:
            plant = resolved_plant(self._applied.bundle(applied.sha256))
        except PenstockError as error:
            # the flow has it already; the processes stay as they are until one comes that can be read
            self._change = {"entry": applied.entry, "state": "failed", "detail": str(error)}
            self.say(f"the processes stay as they are: {error}")
            return
        self._changing = Changing(self.components, components(plant, self.folder, self._taken), applied.entry)
        self.plant = plant
        self._begin(self._changing)

    def _begin(self, changing: Changing) -> None:
        """Targets are named, and a process that goes on has its new configuration for when it starts again,
        before any ends."""
        name_targets(self.data, changing.after.values())
        for child in self.children:
            if child.name in changing.after:
                child.configuration = changing.after[child.name].configuration()
            if child.name in changing.ending:
                child.terminate()
        self._change = {"entry": changing.entry, "state": "restarting", "detail": changing.words()}

    def _go_on(self, changing: Changing) -> None:
        """Once all that has to end has ended, start what comes in its place."""
        ending = [child for child in self.children if child.name in changing.ending]
        late = changing.is_late()
        for child in ending:
            if child.pid is not None and late and not child.wait(0.0):
                self.say(f"{child.name} did not stop within {STOP_SECONDS:.0f} s and was killed")
        if any(child.pid is not None for child in ending):
            return
        before = {child.name: child for child in self.children}
        self.children = []
        for name, component in changing.after.items():
            child = self._child_of(component) if name in changing.starting else before[name]
            if name in before and child is not before[name]:
                child.restarts = before[name].restarts
            self.children.append(child)
        for child in sorted(self.children, key=lambda one: one.order):
            if child.name in changing.starting:
                child.start(self._environment)
        self.components = changing.after
        forget_targets(self.data, self.components.values())
        self._change = {"entry": changing.entry, "state": "done", "detail": changing.words()}
        self._changing = None
        self.say(
            f"{changing.what or f'the plant {self.plant.sha256[:12]} is in'}: "
            f"{changing.words() or 'no process had to restart'}"
        )

    def _journal_name(self, shard: int | None) -> str:
        return "journal" if len(self.folders) == 1 else f"journal-{shard or 0}"

    def _journal(self, shard: int | None) -> BlockingJournalClient:
        """A connection to a shard's journal process, once it answers."""
        until = time.monotonic() + JOURNAL_START_SECONDS
        name = self._journal_name(shard)
        child = self.child(name)
        while True:
            if child.pid is None:
                why = last_error(child.log)
                told = f"the {name} process did not start; see {child.log}"
                raise PenstockError(f"{told}: {why}" if why else told)
            try:
                return BlockingJournalClient(self.folders[shard or 0], "supervisor")
            except JournalError:
                if time.monotonic() > until:
                    raise PenstockError(f"the {name} does not answer; see {child.log}") from None
                time.sleep(0.02)

    def _report(self) -> None:
        body = {
            "component": "supervisor",
            "pid": os.getpid(),
            "plant": self.plant.name,
            "sha256": self.plant.sha256,
            "change": {"entry": self._entry, **self._change},
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
