"""Where master data change in the journal, and to what: frames of a source that carries them, frames that
provision devices, operators' actions, and changes that count from a time that has come.

A change counts for the frame that says it, and for all behind it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from operators.batch import FRAME_QUARANTINED, FRAME_RETAINED, Address, Control, FrameBatch, Int64, UInt64
from operators.decode.cuts import Place
from operators.decode.json_spec import DEVICE_TIME, JsonSpec, Path
from operators.decode.member_kernels import member_hashes
from operators.decode.provisioning import read_birth, read_nodes, read_provisioning
from operators.decode.reports import UnreadableReportError, json_of, time_of
from operators.decode.routing import FILTERED, GO, HELD, MASTER, PROVISION, Route, Router, is_sparkplug
from operators.decode.spec import PACKED, DecodePlan, MasterDevice
from operators.master import (
    KEYS,
    ChangeError,
    MasterChanges,
    Registry,
    Row,
    RowChange,
    Wanted,
    number_of,
    read_changes,
)
from operators.rejects import Reason
from operators.sparkplug import BIRTHS, split_topic
from operators.spec import SECOND

NODES, BIRTH = 1, 2  # what frames of an address may tell beside telemetry
REMEMBERED: Final = 100_000  # addresses whose `nodes` are known to say nothing new
WAITING_MOST: Final = 100_000  # changes of later days


class MasterReader:
    """Reads changes under one plant; `registry` is as it is at the place that is read."""

    def __init__(self, plan: DecodePlan, router: Router, registry: Registry) -> None:
        self.plan = plan
        self.router = router
        self.registry = registry
        self.nodes: dict[str, Path] = {}  # of products in JSON
        for product in plan.products.values():
            layout = product.decode.layout
            if isinstance(layout, JsonSpec) and product.decode.format not in PACKED and layout.nodes:
                self.nodes[product.productId] = layout.nodes
        self._names = [
            np.frombuffer(f'"{name}"'.encode(), np.uint8).copy()
            for name in dict.fromkeys(str(path[-1]) for path in self.nodes.values())
        ]
        self._hashes: UInt64 = np.zeros(0, np.uint64)
        self._said: dict[Address, tuple[int, int]] = {}  # the hash of `nodes`, and what was known then
        self.refused_nodes: list[tuple[str, str]] = []  # source and product, since they were counted

    def tells(self, route: Route, address: Address) -> int:
        """What frames of an address may tell of devices: NODES, BIRTH, or 0 for nothing."""
        return BIRTH if self._is_birth(route, address) else int(self.nodes_of(route, address) is not None)

    def _is_birth(self, route: Route, address: Address) -> bool:
        source = self.router.source(address.source)
        if not self.plan.routing.births or not is_sparkplug(source, address.topic):
            return False
        found = split_topic(address.topic)
        readable = route.verdict in (GO, HELD, Reason.unknown_device, Reason.no_product)
        return found is not None and found.type in BIRTHS and readable

    def nodes_of(self, route: Route, address: Address) -> Path | None:
        """Where a frame of an address may tell of nodes; None where it does not."""
        if route.verdict in (FILTERED, MASTER, PROVISION, Reason.resync, Reason.too_large):
            return None
        source = self.router.source(address.source)
        if source.kind in ("opcua", "files"):
            return None
        for product in self.router.takers(source, address.topic) or (route.productId,):
            if product in self.nodes:
                return self.nodes[product]
        return None

    def changes(
        self, frames: FrameBatch, verdict: Int64, tells: Int64, refused: dict[int, tuple[Reason, str]]
    ) -> Iterator[tuple[Place, int, list[RowChange]]]:
        """Where in a batch something changes, when, and what; made as it is asked for, so that each is judged
        by what those before it made of the tables. verdict, tells: int64[N], what the frames' addresses
        are and what they may tell (see `tells`). refused: by position, why a change is none."""
        ticks, tick = frames.ticks, 0
        for row in [*self._candidates(frames, verdict, tells), len(frames)]:
            while tick < len(ticks.row) and ticks.row[tick] <= row:
                yield from self._due(Place(int(ticks.row[tick]), tick), int(ticks.ns[tick]))
                tick += 1
            if row == len(frames):
                return
            now = int(frames.ingest_ns[row])
            try:
                found = self._judged(self._read(frames, row, int(verdict[row]), now), now)
            except ChangeError as error:
                if verdict[row] in (MASTER, PROVISION):
                    refused[int(frames.position[row])] = error.reason, error.message
                else:
                    address = frames.addresses[int(frames.address[row])]
                    route = self.router.route(address)
                    self.refused_nodes.append((route.source, route.productId))
                continue
            if found:
                yield Place(row, tick), now, found

    def _candidates(self, frames: FrameBatch, verdict: Int64, tells: Int64) -> list[int]:
        """Rows of frames that may change something."""
        asked = tells == NODES
        chosen = tells == BIRTH
        if verdict.any():
            chosen |= (verdict == MASTER) | (verdict == PROVISION)
        found = False
        if asked.any():
            asked_bytes = asked.view(np.uint8)
            hashes = np.zeros(len(frames), np.uint64)
            for name in self._names:
                one = np.empty(len(frames), np.uint64)
                if member_hashes(frames.payload, frames.offset, frames.length, asked_bytes, name, one):
                    hashes ^= one
                    found = True
            self._hashes = hashes
            if found:
                chosen |= hashes != 0
        if not chosen.any():
            return []
        chosen &= (frames.flags & (FRAME_RETAINED | FRAME_QUARANTINED)) == 0
        chosen &= (frames.length > 0) & (frames.length <= self.plan.limits.frame)
        return np.flatnonzero(chosen).tolist()

    def _read(self, frames: FrameBatch, row: int, verdict: int, now_ns: int) -> list[Wanted]:
        """What the frame at a row asks for."""
        depth, payload = self.plan.limits.depth, frames.frame(row)
        if verdict == MASTER:
            try:
                return read_changes(json_of(payload, depth))
            except UnreadableReportError as error:
                raise ChangeError(error.reason, error.message) from error
        address = frames.addresses[int(frames.address[row])]
        route = self.router.route(address)
        if verdict == PROVISION:
            known = self.registry.tables["devices"].get(route.device_id)
            wanted = read_provisioning(payload, route.device_id, route.hub_id, route.productId, depth, known)
            return self._dated(wanted, payload, route, now_ns)
        if self._is_birth(route, address):
            takers = self.router.takers(self.router.source(address.source), address.topic)
            known, hub = self.registry.tables["devices"].get(route.device_id), self.router.hub(address)
            return read_birth(route.device_id, hub, takers[0] if len(takers) == 1 else "", known)
        path = self.nodes_of(route, address)
        said = int(self._hashes[row]), self.registry.version
        if path is None or route.verdict == Reason.unknown_device or self._said.get(address) == said:
            return []
        wanted = read_nodes(payload, path, route.device_id, self.router.hub(address), depth)
        wanted = self._dated(wanted, payload, route, now_ns)
        if not self.registry.outcomes(wanted, self.plan.master, now_ns):
            if len(self._said) >= REMEMBERED:
                self._said.clear()
            self._said[address] = said
        return wanted

    def _dated(self, wanted: list[Wanted], payload: bytes, route: Route, now_ns: int) -> list[Wanted]:
        """What a device says counts from its own time on, for the very frame that says it."""
        product = self.plan.products.get(route.productId)
        layout = product.decode.layout if product is not None else None
        where = layout.timestamp if isinstance(layout, JsonSpec) else DEVICE_TIME
        said_ns = time_of(json_of(payload, self.plan.limits.depth), where)
        return [one._replace(from_ns=min(max(said_ns, 1), now_ns)) for one in wanted] if said_ns else wanted

    def _judged(self, wanted: list[Wanted], now_ns: int) -> list[RowChange]:
        """What changes now; a change of a later day is kept for it. All of a frame, or nothing."""
        later = [one for one in wanted if one.from_ns > now_ns]
        there = [one for one in wanted if one.from_ns <= now_ns]
        found = self.registry.outcomes(there, self.plan.master, now_ns)
        self.registry.outcomes(later, self.plan.master, now_ns)
        for one in later:
            if one in self.registry.waiting:
                continue
            if len(self.registry.waiting) >= WAITING_MOST:
                raise ChangeError(Reason.device_limit, f"{WAITING_MOST} changes wait for their day already")
            self.registry.waiting.append(one)
            self.registry.waiting.sort(key=lambda each: each.from_ns)
        return found

    def _due(self, place: Place, now_ns: int) -> Iterator[tuple[Place, int, list[RowChange]]]:
        """Changes whose day has come at a tick, those of one second together."""
        waiting, spec = self.registry.waiting, self.plan.master
        while waiting and waiting[0].from_ns <= now_ns:
            # of several seconds' ticks the last may stand for all: its time says nothing
            at_ns = -(-waiting[0].from_ns // SECOND) * SECOND
            count = bisect_right(waiting, min(at_ns, now_ns), key=lambda one: one.from_ns)
            due, waiting[:count] = waiting[:count], []
            try:
                found = self.registry.outcomes(due, spec, at_ns)
            except ChangeError:
                found = self._sound(due, at_ns)
            if found:
                yield place, at_ns, found

    def _sound(self, due: list[Wanted], at_ns: int) -> list[RowChange]:
        """What changes come to without those of them whose product, say, is gone since."""
        sound: list[Wanted] = []
        found: list[RowChange] = []
        for one in due:
            try:
                found = self.registry.outcomes([*sound, one], self.plan.master, at_ns)
            except ChangeError:
                continue
            sound.append(one)
        return found

    def action(self, control: Control) -> tuple[list[RowChange], dict[str, Any] | None]:
        """What an operator's action of kind `master` changes, and its answer; None: it has no id."""
        data = control.data
        action_id = data.get("id")
        if not isinstance(action_id, str) or not action_id:
            return [], None
        found: list[RowChange] = []
        try:
            wanted = read_changes(data.get("changes"))
            found = self._judged(wanted, control.at_ns)
            told, accepted = _told(wanted, found, control.at_ns), True
        except ChangeError as error:
            told, accepted = f"{'changes' * error.message.startswith('[')}{error.message}", False
        return found, {
            "id": action_id,
            "accepted": accepted,
            "message": told,
            "alarm_id": None,
            "subject": None,
            "state": None,
            "at_ms": control.at_ns // 1_000_000,
        }

    def whole(self, at_ns: int) -> MasterChanges:
        """All rows that differ from the plant's files, or did as of an earlier event time."""
        tables, changed, past = self.registry.tables, self.registry.changed, self.registry.past
        rows = tuple(
            RowChange(table, key, tables[table].get(key), past[table].get(key, ()))
            for table in KEYS
            for key in dict.fromkeys((*changed[table], *past[table]))
        )
        return MasterChanges(at_ns, rows, whole=True)


def _told(wanted: list[Wanted], found: list[RowChange], now_ns: int) -> str:
    later = sum(one.from_ns > now_ns for one in wanted)
    told = [f"{len(found)} row{'s' * (len(found) != 1)} changed"]
    if same := len(wanted) - len(found) - later:
        told.append(f"{same} were so already" if same > 1 else "1 was so already")
    if later:
        told.append(f"{later} wait{'s' * (later == 1)} for the day from which it counts")
    return ", ".join(told)


def master_device(row: Row) -> MasterDevice:
    """What routing asks of a row of `devices`."""
    return MasterDevice(row.get("productId", ""), row.get("hub_id", ""), row.get("status") or "in_service")


def numbers_of(row: Row, texts: Mapping[str, Any]) -> dict[str, float]:
    """The cells of a row that are numbers, but for parameters that are texts."""
    found = {name: number_of(cell) for name, cell in row.items() if not isinstance(texts.get(name), str)}
    return {name: value for name, value in found.items() if value is not None}
