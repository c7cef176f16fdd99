"""The plan of a change: what a changed folder would do to a plant that runs, before it does it.

`plan_change` compares the applied plant with another one and says of each item what it takes: *live*
(from one journal entry to the next), or which process starts anew; of each rule, whether the alarm
states of its devices are kept; and what cannot be done while the plant runs, with the mend. It reads
two plants and the open alarms, nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from connectors.shards import hash_shard
from flows import specs
from flows.change_documents import ItemChange, KeyChange, changed_items
from flows.components import components, targets
from flows.plant_file import Plant
from flows.status import is_of_shard
from operators.windows.spec import Window
from rules.tables import rule_key

LIVE: Final = "live"
REFUSED: Final = "refused"
MANY: Final = 8  # items of one table that are listed; more are counted
WIDEST: Final = 160  # characters of a value that are shown


class PlannedItem(msgspec.Struct, kw_only=True):
    """One line of a plan. effect: `live`, `restarts NAME`, `starts NAME`, `stops NAME`, `refused`; note: what
    becomes of states and backlogs; kept, closed: open alarms of the rule."""

    kind: str
    name: str
    change: str
    effect: str = LIVE
    note: str = ""
    kept: int = 0
    closed: int = 0
    keys: list[KeyChange] = msgspec.field(default_factory=list)


class Plan(msgspec.Struct, kw_only=True):
    """What a change does. refused: why it cannot be taken in by a plant that runs, each with its
    mend. kept, closed: open alarms of the whole plant."""

    plant: str
    before: str
    after: str
    items: list[PlannedItem] = msgspec.field(default_factory=list)
    restarts: list[str] = msgspec.field(default_factory=list)
    starts: list[str] = msgspec.field(default_factory=list)
    stops: list[str] = msgspec.field(default_factory=list)
    refused: list[str] = msgspec.field(default_factory=list)
    kept: int = 0
    closed: int = 0

    @property
    def empty(self) -> bool:
        """The two are the same to the byte."""
        return self.before == self.after

    def lines(self) -> list[str]:
        """For people."""
        return [f"plant {self.plant}: {self.before[:12]} -> {self.after[:12]}", *self._items(), self._sum()]

    def _items(self) -> list[str]:
        found: list[str] = []
        shown = _gathered(self.items)
        widths = [max((len(getattr(one, key)) for one in shown), default=0) for key in ("kind", "name")]
        for one in shown:
            told = f"; {one.note}" if one.note else ""
            head = f"  {one.kind:<{widths[0]}}  {one.name:<{widths[1]}}  {one.change:<9} {one.effect}{told}"
            found.append(head.rstrip())
            found.extend(f"      {_short(key.line())}" for key in one.keys)
        if not shown:
            found.append("  comments and layout alone; every state is kept")
        return found

    def _sum(self) -> str:
        many = len(self.items)
        if self.refused:
            return f"{many} change{'s' * (many != 1)}; nothing is done, because of what is refused"
        told = f"{many} change{'s' * (many != 1)}; open alarms: {self.kept} kept, {self.closed} closed"
        for word, names in (("restarts", self.restarts), ("starts", self.starts), ("stops", self.stops)):
            if names:
                told += f"; {word} {', '.join(names)}"
        return told


def plan_change(
    before: Plant,
    after: Plant,
    open_alarms: Sequence[Mapping[str, Any]] = (),
    waiting: Mapping[str, Mapping[str, float]] | None = None,
) -> Plan:
    """The plan of going from one plant to another.

    open_alarms: rows with `ruleId`, `productId` and `device_id`; waiting: by target, the `records` that wait.
    """
    old, new = components(before), components(after)
    plan = Plan(plant=after.name, before=before.sha256, after=after.sha256)
    plan.stops = [name for name in old if name not in new]
    plan.starts = [name for name in new if name not in old]
    plan.restarts = [name for name in new if name in old and not new[name].starts_like(old[name])]
    left = _left(before, after)
    gone = Counter(row["device_id"] for row in open_alarms if row.get("device_id") in left)
    alarms = Counter(
        (row["ruleId"], row["productId"]) for row in open_alarms if row.get("device_id") not in left
    )
    kept = _kept_rules(before, after)
    for item in changed_items(before.files, after.files):
        made = _planned(item, plan, before, after, kept, alarms, waiting or {})
        if item.kind == "device" and gone[item.name]:
            made.closed = gone[item.name]
            made.note = "; ".join(filter(None, (made.note, _closed(made.closed))))
        plan.items.append(made)
    plan.items.extend(_carried_along(plan.items, before, after, kept, alarms))
    plan.kept = sum(count for key, count in alarms.items() if key in kept)
    plan.closed = sum(alarms.values()) - plan.kept + gone.total()
    plan.refused = refusals(before, after, plan.items)
    for made in plan.items:
        if any(text.startswith(_refused_as(made)) for text in plan.refused):
            made.effect, made.note = REFUSED, ""
    return plan


def _refused_as(item: PlannedItem) -> tuple[str, ...]:
    """How a refusal of an item begins."""
    if item.kind == "device":
        return (f"devices.csv  {item.name}.",)
    return (f"plant.yaml  {item.name}:", f"plant.yaml  {item.name}.") if item.kind == "plant.yaml" else ()


def refusals(before: Plant, after: Plant, items: Sequence[PlannedItem]) -> list[str]:
    """Why a plant that runs cannot become another one, each with its mend."""
    found = []
    if before.name != after.name:
        found.append(
            f"plant.yaml  plant: '{before.name}' cannot become '{after.name}': its name stands in each alarm "
            f"and every subject; keep '{before.name}', or run the new plant over a data directory of its own"
        )
    if after.journal.max < before.journal.max:
        found.append(
            f"plant.yaml  journal.max: {before.journal.max:,} bytes cannot become {after.journal.max:,}: a "
            "journal on disk never shrinks; keep it as it is, or larger"
        )
    where = (after.journal.kind, after.journal.topic)
    if (before.journal.kind, before.journal.topic) != where:
        found.append(
            "plant.yaml  journal: another journal does not hold what this one does; keep kind and topic as "
            "they are, or run the new plant over a data directory of its own"
        )
    if any(item.kind == "plant.yaml" and item.name == "shards" for item in items):
        found.append(
            "plant.yaml  shards: devices cannot move between shards while they are heard; keep it as it "
            "is, or run the new plant over a data directory of its own"
        )
    elif after.shards.count > 1:
        found += _moved(before, after)
    return found


def _moved(before: Plant, after: Plant) -> list[str]:
    """Devices whose hub or site is one of another shard; the first few."""
    by, count = after.shards.by, after.shards.count
    found = []
    for name, row in after.master.devices.items() if by != "device_id" else ():
        old, new = before.master.devices.get(name, {}).get(by, ""), row.get(by, "")
        if old and new and hash_shard(old, count) != hash_shard(new, count):
            found.append(
                f"devices.csv  {name}.{by}: '{old}' is in shard {hash_shard(old, count)}, '{new}' in "
                f"{hash_shard(new, count)}, and a device's state cannot move; keep '{old}', or retire {name} "
                "and add the device under another name"
            )
    more = [f"devices.csv  and {len(found) - MANY} more devices"] if len(found) > MANY else []
    return found[:MANY] + more


# -- items


def _planned(
    item: ItemChange,
    plan: Plan,
    before: Plant,
    after: Plant,
    kept: set[tuple[str, str]],
    alarms: Mapping[tuple[str, str], int],
    waiting: Mapping[str, Mapping[str, float]],
) -> PlannedItem:
    made = PlannedItem(kind=item.kind, name=item.name, change=item.change, keys=item.keys)
    made.effect = _effect(_processes(item, before, after), plan)
    if item.kind == "rule":
        _tell_rule(made, before, after, kept, alarms)
    elif item.kind == "product":
        made.note = _product_note(item.name, before, after)
    elif item.kind == "sink":
        gone = [name for name in targets(before) if name not in targets(after)]
        made.note = "; ".join(_abandoned(name, waiting) for name in gone)
    elif item.kind == "device" and item.change == "changed":
        made.note = "begins anew" if any(key.key == "productId" for key in item.keys) else ""
    return made


def _processes(item: ItemChange, before: Plant, after: Plant) -> list[str]:
    """The processes that an item is about."""
    if item.kind == "source":
        return [f"receiver-{item.name}"]
    if item.kind == "sink":
        names = {**dict.fromkeys(targets(before)), **dict.fromkeys(targets(after))}
        return [f"drainer-{name}" for name in names if name != "historian"]
    if item.kind == "plant.yaml":
        about = {"historian": ["historian", "drainer-historian"], "archive": ["archiver"]}
        return about.get(item.name, [item.name])
    return []


def _effect(names: Iterable[str], plan: Plan) -> str:
    wanted = list(names)
    parts = []
    for word, those in (("restarts", plan.restarts), ("starts", plan.starts), ("stops", plan.stops)):
        found = [one for name in wanted for one in those if one == name or is_of_shard(one, (name,))]
        if found:
            parts.append(f"{word} {', '.join(found)}")
    return ", ".join(parts) or LIVE


def _abandoned(target: str, waiting: Mapping[str, Mapping[str, float]]) -> str:
    records = int(waiting.get(target, {}).get("records", 0))
    what = f"{records} records that wait for it are" if records else "what comes from now on is"
    return f"{what} not sent to {target}"


def _closed(count: int) -> str:
    return f"{count} open alarm{'s are' if count != 1 else ' is'} closed"


def _left(before: Plant, after: Plant) -> set[str]:
    """Devices that are gone, or are of another product: what ran of them ends."""
    old, new = before.master.devices, after.master.devices
    return {name for name, row in old.items() if new.get(name, {}).get("productId") != row["productId"]}


def _kept_rules(before: Plant, after: Plant) -> set[tuple[str, str]]:
    """(ruleId, productId) of the rules that go on with their state."""
    old, new = _rule_keys(before), _rule_keys(after)
    return {key for key, meaning in new.items() if old.get(key) == meaning}


def _rule_keys(plant: Plant) -> dict[tuple[str, str], str]:
    spec = specs.rules(plant)
    return {
        (rule.ruleId, name): rule_key(rule, spec.products[name], spec.timezone)
        for rule in spec.rules
        for name in rule.products
        if name in spec.products
    }


def _tell_rule(
    made: PlannedItem,
    before: Plant,
    after: Plant,
    kept: set[tuple[str, str]],
    alarms: Mapping[tuple[str, str], int],
) -> None:
    for (ruleId, productId), count in alarms.items():
        if ruleId == made.name:
            made.kept += count if (ruleId, productId) in kept else 0
            made.closed += 0 if (ruleId, productId) in kept else count
    if made.change == "added":
        made.note = "begins with the next reading"
        return
    mine = {key for plant in (before, after) for key in _rule_keys(plant) if key[0] == made.name}
    whole = bool(mine) and mine <= kept
    told = [] if made.change == "removed" else ["keeps its state" if whole else "begins anew"]
    if made.closed:
        told.append(_closed(made.closed))
    if made.kept:
        told.append(f"{made.kept} open alarm{'s are' if made.kept != 1 else ' is'} kept")
    made.note = ", ".join(told)


def _carried_along(
    items: Sequence[PlannedItem],
    before: Plant,
    after: Plant,
    kept: set[tuple[str, str]],
    alarms: Mapping[tuple[str, str], int],
) -> list[PlannedItem]:
    """Rules whose own text is the same and that begin anew all the same, for something they use."""
    told = {item.name for item in items if item.kind == "rule"}
    lost = sorted(key for key in _rule_keys(before) if key not in kept and key[0] not in told)
    found = []
    for ruleId in dict.fromkeys(key[0] for key in lost):
        products = [productId for name, productId in lost if name == ruleId]
        closed = sum(alarms.get((ruleId, productId), 0) for productId in products)
        note = f"begins anew for {', '.join(products)}: what it uses has changed"
        if closed:
            note += f", {_closed(closed)}"
        found.append(PlannedItem(kind="rule", name=ruleId, change="affected", note=note, closed=closed))
    return found


def _product_note(name: str, before: Plant, after: Plant) -> str:
    old, new = before.products.get(name), after.products.get(name)
    if old is None:
        return ""
    ends = _ended_windows(old.windows, new.windows if new is not None else [])
    return f"open windows of {', '.join(ends)} are written as they stand" if ends else ""


def _ended_windows(old: Sequence[Window], new: Sequence[Window]) -> list[str]:
    there = {window.key for window in new}
    return [window.key for window in old if window.key not in there]


# -- what is shown


def _gathered(items: Sequence[PlannedItem]) -> list[PlannedItem]:
    """The items, those of a long table as one line a kind of change."""
    count = Counter((item.kind, item.change) for item in items)
    found: list[PlannedItem] = []
    done: set[tuple[str, str]] = set()
    for item in items:
        key = (item.kind, item.change)
        if item.kind not in ("device", "site", "customer") or count[key] <= MANY:
            found.append(item)
        elif key not in done:
            done.add(key)
            names = [one.name for one in items if (one.kind, one.change) == key]
            few = f"{', '.join(names[:3])}, ... ({len(names)})"
            found.append(PlannedItem(kind=f"{item.kind}s", name=few, change=item.change))
    return found


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
