"""The live engine over what was journaled, up to a time, with a probe beside the rules stage.

Nothing here touches the running plant: journal, archive and recorded input are read, the stages up
to the rules run over them in this process, and what they then hold is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from connectors.errors import ConfigError, PenstockError
from connectors.journal.merging import Merger
from connectors.journal.reader import JournalReader
from connectors.journal.source import SLICE_BYTES, SLICE_ROWS, slices
from flows import specs
from flows.backtest_input import open_history
from flows.explain import Probe, ProbeSpec
from flows.explain_snapshot import newest_snapshot
from flows.plant_file import Plant
from flows.plant_reader import load_bundle
from flows.recorded import recorded_slices
from flows.shard import Shard
from flows.shards import archive_path, home_of
from operators.batch import Slice, Ticks
from operators.document import nearest
from rules.spec import Rule
from rules.step import RulesLogic

FOREVER: Final = 1 << 62
LONG: Final = 100_000  # entries of a journal that is not replayed where a snapshot will do


@dataclass(slots=True)
class Replayed:
    """What a replay left. clock_ns: the journal's clock at its end (0: nothing was read).
    first_ns: at its beginning; complete: nothing that came before is missing. alarms: `data` of the newest
    event of each subject of the rule."""

    shard: Shard
    probes: dict[str, Probe]
    source: str
    complete: bool
    first_ns: int = 0
    clock_ns: int = 0
    alarms: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def rules(self) -> RulesLogic:
        logic = self.shard.stages["rules"].logic
        assert isinstance(logic, RulesLogic)
        return logic


def replay_recording(plant: Plant, paths: list[Path], rule: str, device: str | None, until: int) -> Replayed:
    """Recorded input, as `penstock replay` reads it. until: nanoseconds since 1970."""
    shard = Shard(plant, load=load_bundle)
    return _Replay(shard, rule, device, "recording", True).run(recorded_slices(plant, paths), until)


def replay_data(data: Path, rule: str, device: str | None, until: int) -> Replayed:
    """What was journaled in a data directory: a journal that is whole and not long from its first entry
    on, else from the flow's newest snapshot, else the archive, else what is left of the journal."""
    with closing(JournalReader(data / "journal")) as reader:
        first = reader.first_plant()
        if first is None:
            raise PenstockError("no plant has been applied; start it with: penstock run PLANT")
        bundle = reader.bundle
        begins = reader.oldest()
        if begins > 1 or reader.last() > LONG:
            with newest_snapshot(data) as snapshot:
                if snapshot is not None and _clock(reader, snapshot.entry) <= until:
                    pages = snapshot.pages
                    shard = Shard(load_bundle(first.files), load=load_bundle, bundle=bundle, pages=pages)
                    replay = _Replay(shard, rule, device, "snapshot", True)
                    replay.restore(snapshot.stages)
                    return replay.run(_journal_slices(reader, snapshot.entry), until)
        shard = Shard(load_bundle(first.files), load=load_bundle, bundle=bundle)
        if begins <= 1:
            return _Replay(shard, rule, device, "journal", True).run(_journal_slices(reader, begins), until)
    return _replay_archive(data, shard, rule, device, until)


def _replay_archive(data: Path, shard: Shard, rule: str, device: str | None, until: int) -> Replayed:
    """The archive and then the journal; where there is no archive, what is left of the journal."""
    config = shard.first_plant.archive
    path = None if config is None else archive_path(config.path, home_of(data)[1])
    to_ms = None if until >= FOREVER else until // 1_000_000 + 1
    history = open_history(data, path, None, to_ms, lambda told: None, with_gaps=True)
    oldest = history.oldest
    source = "journal" if oldest is None else "archive"
    complete = oldest is not None and oldest.contents.first <= 1
    return _Replay(shard, rule, device, source, complete).run(history.slices(), until)


def _clock(reader: JournalReader, entry: int) -> int:
    """The journal's clock just before an entry, nanoseconds; 0 where that has been trimmed."""
    heads = reader.heads(entry - 1, 1) if entry - 1 >= reader.oldest() else []
    return heads[0].ms * 1_000_000 if heads else 0


def _journal_slices(reader: JournalReader, number: int) -> Iterator[Slice]:
    merger = Merger()
    while entries := reader.read(number, SLICE_ROWS, SLICE_BYTES):
        yield from slices(reader, entries, merger)
        number = entries[-1].number + 1


def cut(item: Slice, until: int) -> Slice | None:
    """What of a slice had been journaled by `until`; None where nothing had."""
    if item.control is not None:
        return item if item.control.at_ns <= until else None
    frames = item.frames
    rows = int(np.searchsorted(frames.ingest_ns, until, "right"))
    ticks = int(np.searchsorted(frames.ticks.ns, until, "right"))
    if rows == len(frames) and ticks == len(frames.ticks.ns):
        return item
    if rows == 0 and ticks == 0:
        return None
    kept = replace(
        frames,
        offset=frames.offset[:rows],
        length=frames.length[:rows],
        address=frames.address[:rows],
        ingest_ns=frames.ingest_ns[:rows],
        position=frames.position[:rows],
        flags=frames.flags[:rows],
        ticks=Ticks(frames.ticks.row[:ticks], frames.ticks.ns[:ticks]),
    )
    return replace(item, frames=kept, position=item.position - len(frames) + rows)


class _Replay:
    def __init__(self, shard: Shard, rule: str, device: str | None, source: str, complete: bool) -> None:
        self.shard = shard
        self.rule = rule
        self.device = device
        self.found = Replayed(shard, {}, source, complete)
        shard.decode(), shard.contract(), shard.rules()
        self.stages = [shard.stages[name] for name in ("decode", "contract")]
        self.rules = shard.stages["rules"]
        self._version = -1

    def restore(self, stages: Mapping[str, bytes]) -> None:
        """Go on where a snapshot of the flow stands."""
        for stage in (*self.stages, self.rules):
            if stage.name in stages:
                stage.restore(stages[stage.name])
        self._version = self.stages[0].registry.version
        self._probe()
        for probe in self.found.probes.values():
            probe.seed(self.found.rules)

    def run(self, items: Iterator[Slice], until: int) -> Replayed:
        """Everything up to `until`, the stages of the dataflow in their order."""
        if not self.found.probes:
            self._probe()
        for whole in items:
            item = cut(whole, until)
            if item is not None:
                self._take(item)
            if item is not whole:
                break
        if not self.found.probes:
            raise ConfigError(_no_rule(self.shard.current, self.rule))
        for standing in self.found.rules.alarms.standings.values():
            if standing.subject.rule.ruleId == self.rule and standing.data is not None:
                self.found.alarms[standing.subject.name] = standing.data
        return self.found

    def _take(self, item: Slice) -> None:
        self._clock(item)
        for stage in self.stages:
            stage.process(item)
        version = self.stages[0].registry.version
        if version != self._version and (item.control is None or item.control.kind != "plant"):
            self._probe()
        self._version = version
        for part in item.runs:
            for probe in self.found.probes.values():
                probe.take(part)
        self.rules.process(item)
        for part in item.runs:
            for alarm in part.alarms:
                if alarm.ruleId == self.rule:
                    self.found.alarms[str(alarm.event["subject"])] = dict(alarm.event["data"])
        if item.control is not None and item.control.kind == "plant":
            self._probe()

    def _clock(self, item: Slice) -> None:
        times = [int(column[-1]) for column in (item.frames.ingest_ns, item.frames.ticks.ns) if len(column)]
        if item.control is not None:
            times.append(item.control.at_ns)
        newest = max(times, default=0)
        self.found.first_ns = self.found.first_ns or min(times, default=0)
        self.found.clock_ns = max(self.found.clock_ns, newest)

    def _probe(self) -> None:
        """Probes for the rule of the plant that is applied now; they go on where those before stood."""
        plant = self.shard.current
        rule = rule_of(plant, self.rule)
        before, self.found.probes = self.found.probes, {}
        if rule is None:
            return
        spec = specs.rules(plant)
        for name in rule.products:
            probe = Probe(
                ProbeSpec(spec.products[name], rule, spec.joined, spec.columns),
                self.shard.devices,
                self.device,
            )
            if name in before:
                probe.follow(before[name])
            self.found.probes[name] = probe


def rule_of(plant: Plant, name: str) -> Rule | None:
    """A rule of a plant."""
    return next((rule for rule in plant.rules if rule.ruleId == name), None)


def _no_rule(plant: Plant, name: str) -> str:
    return f"no rule '{name}'{nearest(name, [rule.ruleId for rule in plant.rules])}"


def checked(plant: Plant | None, rule: str, device: str | None, *, recorded: bool = False) -> None:
    """Raises `ConfigError` for a rule or a device that the plant does not know. recorded: it may come to know
    the device by what is recorded."""
    if plant is None:
        return
    found = rule_of(plant, rule)
    if found is None:
        raise ConfigError(_no_rule(plant, rule))
    row = plant.master.devices.get(device) if device is not None else None
    if device is not None and row is None and plant.devices.unknown != "accept" and not recorded:
        raise ConfigError(f"no device '{device}' in devices.csv{nearest(device, plant.master.devices)}")
    product = row.get("productId") if row is not None else None
    # what a source is said to send comes before what master data say
    sent = {getattr(source, "product", None) for source in plant.sources.values()}
    if product and product not in found.products and sent.isdisjoint(found.products):
        raise ConfigError(
            f"device '{device}' is of product {product}; rule '{rule}' is for {', '.join(found.products)}"
        )
