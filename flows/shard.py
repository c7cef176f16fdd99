"""One shard: its plant, its device slots, and the logic of each stage built from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from flows import specs
from flows.plant_file import Plant
from flows.rule_status import told_of_rules
from operators.batch import Slice, StateChanges
from operators.contract.sequence import MISSING_TOLD
from operators.contract.step import ContractLogic
from operators.decode.step import DecodeLogic
from operators.devices import Devices
from operators.pages import PageStore
from operators.stage import StageLogic
from operators.state.step import StateLogic
from operators.windows.step import WindowsLogic
from rules.step import RulesLogic


class AppliedLogic(StageLogic, Protocol):
    """A stage's logic that takes a changed plant in, and whose state is a nest (`snapshot.Kept`)."""

    def apply(self, specs: Any, /) -> None:
        """New specs from the next slice on; state of what did not change is kept."""

    def export(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any], /) -> None: ...


class StageClock:
    """What one stage has cost so far (for metrics alone; it reaches no output).

    seconds: of the wall clock; cpu_seconds: of the worker's thread; both without the snapshots,
    whose wall time is snapshot_seconds."""

    __slots__ = ("cpu_seconds", "rows", "seconds", "slices", "snapshot_seconds")

    def __init__(self) -> None:
        self.slices = 0
        self.rows = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.snapshot_seconds = 0.0


class _Snapshot(msgspec.Struct, array_like=True):
    """What Bytewax keeps of a stage. state: its generation in the page store, or, where there is
    none, all of it."""

    plant: str
    state: int | bytes


class PlannedStage:
    """A stage's logic under the plant that is applied at its place in the journal.

    A control of kind `plant` changes the specs exactly there. A snapshot names the bundle under
    which it was taken, so a restart rebuilds the logic from that bundle and not from a newer one.
    """

    def __init__(
        self,
        shard: Shard,
        name: str,
        build: Callable[[Plant], AppliedLogic],
        specs_of: Callable[[Plant], Any],
    ) -> None:
        self.shard = shard
        self.name = name
        self.build = build
        self.specs_of = specs_of
        self.plant = shard.first_plant
        self.logic = build(self.plant)
        self.clock = shard.clocks.setdefault(name, StageClock())
        shard.stages[name] = self

    def process(self, item: Slice) -> None:
        began, cpu = time.perf_counter(), time.thread_time()
        control = item.control
        if control is not None and control.kind == "plant" and control.data["sha256"] != self.plant.sha256:
            self.plant = self.shard.plant(control.data["sha256"], control.data["files"])
            self.logic.apply(self.specs_of(self.plant))
        self.logic.process(item)
        clock = self.clock
        clock.slices += 1
        clock.rows += len(item.frames)
        clock.seconds += time.perf_counter() - began
        clock.cpu_seconds += time.thread_time() - cpu

    def snapshot(self) -> bytes:
        began = time.perf_counter()
        pages = self.shard.pages
        state = self.logic.snapshot() if pages is None else pages.write(self.name, self.logic.export())
        packed = msgspec.msgpack.encode(_Snapshot(self.plant.sha256, state))
        self.clock.snapshot_seconds += time.perf_counter() - began
        return packed

    def restore(self, data: bytes) -> None:
        kept = msgspec.msgpack.decode(data, type=_Snapshot)
        if kept.plant != self.plant.sha256:
            self.plant = self.shard.plant(kept.plant, None)
            self.logic = self.build(self.plant)
        if isinstance(kept.state, bytes):
            self.logic.restore(kept.state)
            return
        if self.shard.pages is None:
            raise LookupError(f"the state of '{self.name}' lies in pages, and there is no page store")
        self.logic.load(self.shard.pages.read(self.name, kept.state))


class Shard:
    """What the stages of one shard have in common.

    first_plant: the plant that is applied where reading starts, unless a snapshot names another.
    bundle: gives the files of a journaled plant bundle by its SHA-256; None where every plant
    entry carries its files. pages: where the stages' state is kept; None: in the snapshots themselves.
    number: of this shard among those of the plant; it stands in the ids of its alarm events.
    """

    def __init__(
        self,
        first_plant: Plant,
        *,
        load: Callable[[Mapping[str, bytes]], Plant],
        bundle: Callable[[str], Mapping[str, bytes]] | None = None,
        pages: PageStore | None = None,
        number: int = 0,
    ) -> None:
        self.first_plant = first_plant
        self.number = number
        self.pages = pages
        self.devices = Devices()
        self.clocks: dict[str, StageClock] = {}
        self.stages: dict[str, PlannedStage] = {}
        self._load = load
        self._bundle = bundle
        self._plants = {first_plant.sha256: first_plant}

    def plant(self, sha256: str, files: Mapping[str, bytes] | None) -> Plant:
        """The plant of a bundle, read once."""
        known = self._plants.get(sha256)
        if known is None:
            if files is None:
                if self._bundle is None:
                    raise LookupError(f"no plant bundle {sha256}")
                files = self._bundle(sha256)
            known = self._plants[sha256] = self._load(files)
        return known

    @property
    def current(self) -> Plant:
        """The plant under which the newest slice was decoded."""
        return self.stages["decode"].plant if "decode" in self.stages else self.first_plant

    def newest_values(self) -> StateChanges:
        """Records of the devices whose newest values changed since the last call."""
        stage = self.stages.get("state")
        logic = stage.logic if stage is not None else None
        return logic.changes() if isinstance(logic, StateLogic) else StateChanges()

    def told_of_rules(self) -> dict[str, Any]:
        """What each rule has done and cost so far (flows/rule_status.py)."""
        stage = self.stages.get("rules")
        logic = stage.logic if stage is not None else None
        return told_of_rules(logic) if isinstance(logic, RulesLogic) else {}

    def undeclared(self) -> list[dict[str, Any]]:
        """Metrics that frames carried and their product does not declare, with how many readings did
        since the flow's start."""
        stage = self.stages.get("decode")
        if stage is None or not isinstance(stage.logic, DecodeLogic):
            return []
        counts = sorted(dict(stage.logic.unknown_metrics).items())
        return [{"productId": product, "metric": name, "count": count} for (product, name), count in counts]

    def missing(self) -> list[dict[str, Any]]:
        """Devices of whose counted readings some never came (`contract.sequence`), the worst first."""
        stage = self.stages.get("contract")
        if stage is None or not isinstance(stage.logic, ContractLogic):
            return []
        return stage.logic.missing(MISSING_TOLD)

    def decode(self) -> StageLogic:
        """Bytes to readings."""
        return PlannedStage(
            self, "decode", lambda p: DecodeLogic(specs.decode(p), self.devices), specs.decode
        )

    def contract(self) -> StageLogic:
        """Readings to accepted readings."""
        return PlannedStage(
            self, "contract", lambda p: ContractLogic(specs.contract(p), self.devices), specs.contract
        )

    def rules(self) -> StageLogic:
        """Accepted readings to alarm events."""
        spec = partial(specs.rules, shard=self.number)
        return PlannedStage(self, "rules", lambda p: RulesLogic(spec(p), self.devices), spec)

    def windows(self) -> StageLogic:
        """Accepted readings to event-time aggregates."""
        return PlannedStage(
            self, "windows", lambda p: WindowsLogic(specs.windows(p), self.devices), specs.windows
        )

    def state(self) -> StageLogic:
        """Everything accepted to the newest values."""
        return PlannedStage(self, "state", lambda p: StateLogic(specs.state(p), self.devices), specs.state)
