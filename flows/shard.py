"""One shard: its plant, its device slots, and the logic of each stage built from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from flows import specs
from flows.plant_file import MasterData, Plant
from flows.rule_status import told_of_rules
from operators.attributes import Attributes
from operators.batch import Slice, StateChanges
from operators.contract.sequence import MISSING_TOLD
from operators.contract.step import ContractLogic
from operators.decode.step import DecodeLogic
from operators.devices import Devices
from operators.master import DeviceRow, MasterChanges, Registry
from operators.pages import PageStore
from operators.snapshot import pack, unpack
from operators.stage import StageLogic
from operators.state.step import StateLogic
from operators.windows.step import WindowsLogic
from rules.step import RulesLogic

MASTER: Final = "_master"  # in a stage's state: its registry


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
        build: Callable[[Plant, Registry], AppliedLogic],
        specs_of: Callable[[Plant], Any],
    ) -> None:
        self.shard = shard
        self.name = name
        self.build = build
        self.specs_of = specs_of
        self.registry = _registry(shard.first_plant)
        self._version = self.registry.version
        self.plant = shard.first_plant  # with master data as they are here
        self.logic = build(self.plant, self.registry)
        self.clock = shard.clocks.setdefault(name, StageClock())
        shard.stages[name] = self

    def process(self, item: Slice) -> None:
        began, cpu = time.perf_counter(), time.thread_time()
        if isinstance(self.logic, DecodeLogic):  # finds where master data change, and changes with them
            before = self.logic.let_in(item)
            self._take_plant(item)
            self.logic.process(item, before)
        else:
            for part in item.runs:
                self._take_plant(part)
                if part.master is not None and not part.master.whole:
                    self._take_master(part.master)
                self.logic.process(part)
        clock = self.clock
        clock.slices += 1
        clock.rows += len(item.frames)
        clock.seconds += time.perf_counter() - began
        clock.cpu_seconds += time.thread_time() - cpu

    def _take_plant(self, item: Slice) -> None:
        control = item.control
        if control is None or control.kind != "plant" or control.data["sha256"] == self.plant.sha256:
            return
        plant = self.shard.plant(control.data["sha256"], control.data["files"])
        master, keep = plant.master, plant.devices.source == "stream"
        self.registry.rebase(master.tables(), keep, control.at_ns, master.dated)
        self.plant = self._as_here(plant)
        self.logic.apply(self.specs_of(self.plant))

    def _take_master(self, changes: MasterChanges) -> None:
        """Master data change: what follows from them alone, or, where the stage cannot tell, all of it as
        if another plant was applied."""
        devices, past = self.registry.tables["devices"], self.registry.past["devices"]
        rows = [
            DeviceRow(one.key, devices.get(one.key), one.row, past.get(one.key, ()), one.past)
            for one in changes.rows
            if one.table == "devices" and one.row is not None
        ]
        self.registry.take(changes.rows)
        refresh = getattr(self.logic, "refresh", None)
        attributes = Attributes(self.registry.tables, self.registry.past)
        if refresh is not None and refresh([*rows, *_joined(changes, attributes)], attributes):
            return
        self.plant = self._as_here(self.plant)
        self.logic.apply(self.specs_of(self.plant))

    def here(self) -> Plant:
        """The plant, with master data as they are."""
        if self._version != self.registry.version:
            self.plant, self._version = self._as_here(self.plant), self.registry.version
        return self.plant

    def _as_here(self, plant: Plant) -> Plant:
        """A plant with the registry's tables in the place of its files'."""
        registry, master = self.registry, plant.master
        differs = any(registry.changed.values()) or any(registry.past.values())
        if not differs and master.tables() == registry.files:
            return plant
        rows: Any = {name: dict(rows) for name, rows in registry.tables.items()}
        past = {name: dict(rows) for name, rows in registry.past.items()}
        return replace(
            plant, master=MasterData(**rows, columns=master.columns, dated=master.dated, past=past)
        )

    def snapshot(self) -> bytes:
        began = time.perf_counter()
        pages = self.shard.pages
        kept = {**self.logic.export(), MASTER: self.registry.packed()}
        state = pack(kept) if pages is None else pages.write(self.name, kept)
        packed = msgspec.msgpack.encode(_Snapshot(self.plant.sha256, state))
        self.clock.snapshot_seconds += time.perf_counter() - began
        return packed

    def restore(self, data: bytes) -> None:
        kept = msgspec.msgpack.decode(data, type=_Snapshot)
        if isinstance(kept.state, bytes):
            state = unpack(kept.state)
        elif self.shard.pages is None:
            raise LookupError(f"the state of '{self.name}' lies in pages, and there is no page store")
        else:
            state = self.shard.pages.read(self.name, kept.state)
        master = state.pop(MASTER, None)
        if kept.plant != self.plant.sha256 or master is not None:
            plant = self.shard.plant(kept.plant, None)
            self.registry = _registry(plant)
            if master is not None:
                self.registry.load(unpack(master))
            self.plant = self._as_here(plant)
            self.logic = self.build(self.plant, self.registry)
        self.logic.load(state)


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
        """The plant under which the newest slice was decoded, with master data as they are there."""
        return self.stages["decode"].here() if "decode" in self.stages else self.first_plant

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
            self, "decode", lambda p, r: DecodeLogic(specs.decode(p), self.devices, r), specs.decode
        )

    def contract(self) -> StageLogic:
        """Readings to accepted readings."""
        return PlannedStage(
            self, "contract", lambda p, _: ContractLogic(specs.contract(p), self.devices), specs.contract
        )

    def rules(self) -> StageLogic:
        """Accepted readings to alarm events."""
        spec = partial(specs.rules, shard=self.number)
        return PlannedStage(self, "rules", lambda p, _: RulesLogic(spec(p), self.devices), spec)

    def windows(self) -> StageLogic:
        """Accepted readings to event-time aggregates."""
        return PlannedStage(
            self, "windows", lambda p, _: WindowsLogic(specs.windows(p), self.devices), specs.windows
        )

    def state(self) -> StageLogic:
        """Everything accepted to the newest values."""
        return PlannedStage(self, "state", lambda p, _: StateLogic(specs.state(p), self.devices), specs.state)


def _registry(plant: Plant) -> Registry:
    """Master data as the plant's files have them."""
    return Registry(plant.master.tables(), dated=plant.master.dated)


def _joined(changes: MasterChanges, attributes: Attributes) -> list[DeviceRow]:
    """Devices whose site or customer has changed."""
    sites, customers = (
        frozenset(one.key for one in changes.rows if one.table == table) for table in ("sites", "customers")
    )
    if not sites and not customers:
        return []
    past = attributes.past.get("devices", {})
    return [
        DeviceRow(device, row, row, past.get(device, ()), past.get(device, ()))
        for device, row in attributes.tables["devices"].items()
        if attributes.touches(device, sites, customers)
    ]
