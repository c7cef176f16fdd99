"""The sources of what was heard: where addresses and payloads name devices, and topics cut into families.

A source has one template, and devices.csv gives a device one product. So the topics of a broker become
several sources where their levels differ, or where one device sends under several topics what no one
product can read: JSON with a member that is a number here and a text there, values that stand alone,
bytes. No two sources take the same topic, else every frame of it would come twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from flows.heard import HeardFrame, counted
from flows.heard_kinds import most_sent
from flows.heard_rows import Path, json_of
from flows.heard_sources import HeardSource, clean, compiled, find_rows, member_of, naming_member, path_of
from flows.scaffold import leaves
from operators.decode.routing import DEFAULT_TEMPLATE, TopicFilters

MOST_SOURCES: Final = 12  # a receiver process each
MOST_BEGINNINGS: Final = 8  # of topics of as many levels
MOST_PLACES: Final = 60  # of one level of the topics; beyond it they tell no messages apart
_ROLES: Final = frozenset(
    {
        *("data", "event", "events", "json", "measurement", "measurements", "metrics", "out", "pub", "raw"),
        *("reading", "readings", "sensor", "sensors", "state", "status", "tele", "telemetry", "up", "uplink"),
        *("value", "values", "stat", "online", "availability", "lwt", "config", "info", "result", "alarm"),
        *("temp", "temperature", "hum", "humidity", "pressure", "flow", "level", "speed", "rpm", "co2"),
        *("power", "energy", "voltage", "current", "frequency", "battery", "rssi", "signal", "vibration"),
    }
)
_ONCE: Final = frozenset(
    {"availability", "birth", "bridge", "config", "discovery", "info", "lwt", "online", "will"}
)
_ANY: Final = frozenset({"value", "val", "v", "reading", "measurement", "result", "raw", "state", "data"})


def heard_sources(frames: Sequence[HeardFrame]) -> list[HeardSource]:
    """The sources of frames, in the order in which they were heard. A topic that no template can tell from
    others is in none."""
    by_name: dict[str, list[HeardFrame]] = {}
    for frame in frames:
        by_name.setdefault(frame.address.source, []).append(frame)
    found: list[HeardSource] = []
    for name, heard in by_name.items():
        for source in _sources(name, heard):
            source.origin = name
            find_rows(source, heard)
            source.name = _free(source.name, {one.name for one in found} | (by_name.keys() - {name}))
            found.append(source)
    return found


def without_told_once(frames: Sequence[HeardFrame]) -> tuple[Sequence[HeardFrame], list[str]]:
    """The frames without what devices and their bridges say of themselves, not of the plant: attributes and
    discovery by the conventions of Homie and Home Assistant, and messages of that sort that the broker
    kept and nobody sent while it was listened to. And what a person should know of it."""
    sent = {frame.address.topic for frame in frames if not frame.retained}
    kept = [frame for frame in frames if not _is_told_once(frame.address.topic, sent)]
    if not kept or len(kept) == len(frames):
        return frames, []
    left = next(frame.address.topic for frame in frames if _is_told_once(frame.address.topic, sent))
    told = counted(len(frames) - len(kept), "frame")
    return kept, [f"{told} left out that devices tell of themselves, e.g. '{left[:100]}'"]


def _is_told_once(topic: str, sent: Collection[str]) -> bool:
    levels = topic.lower().split("/")
    if any(level.startswith("$") for level in levels[1:]):
        return True
    if levels[0] == "homeassistant" and levels[-1] == "config":
        return True
    return topic not in sent and bool(sent) and not _ONCE.isdisjoint(levels)


def _sources(name: str, frames: Sequence[HeardFrame]) -> list[HeardSource]:
    topics = list(dict.fromkeys(frame.address.topic for frame in frames))
    if any(frame.header for frame in frames):
        return [HeardSource(name, "files", topics=topics)]
    if any("peer" in dict(frame.address.headers) for frame in frames):
        member = naming_member(frames)
        return [HeardSource(name, "tcp", device=f"payload:{member}" if member else "peer", topics=topics)]
    default = [topic for topic in topics if compiled(DEFAULT_TEMPLATE).parts(topic) is not None]
    found = [HeardSource(name, "mqtt", topics=default, filters=["iotlink/+/+/+/+/pub/+/+"])] * bool(default)
    others = set(topics).difference(default)
    cut = _cut(name, [frame for frame in frames if frame.address.topic in others]) if others else []
    found += cut
    if len(found) == 1:
        found[0].name = name
    return _apart(found)


def _apart(sources: Sequence[HeardSource]) -> list[HeardSource]:
    """The sources, those that would take topics of others by their own topics alone; without those that
    cannot be told apart even so."""
    owners = {topic: number for number, source in enumerate(sources) for topic in source.topics}
    takers = TopicFilters(
        (str(number), one) for number, source in enumerate(sources) for one in source.filters
    )
    wide = {
        int(number)
        for topic, owner in owners.items()
        for number in takers.takers(topic)
        if int(number) != owner
    }
    for number in wide:
        sources[number].filters = sources[number].topics
    return [
        source
        for number, source in enumerate(sources)
        if number not in wide or all(map(is_literal, source.topics))
    ]


# -- topics


def is_literal(level: str) -> bool:
    """Whether a level of a topic stands for itself in a template and in plant.yaml."""
    return not re.search(r"[{}+#]", level) and level.isprintable()


@dataclass(slots=True, eq=False)
class _Group:
    """Topics of as many levels. at: the level that names the device, -1 where `member` of the payload does;
    apart: the levels under which a device sends several messages."""

    rows: list[list[str]]
    frames: dict[str, list[HeardFrame]]  # by topic
    rooted: bool  # all begin alike
    at: int = -1
    member: str = ""
    apart: list[int] = field(default_factory=list)

    def device(self, frame: HeardFrame) -> str:
        """Whose a frame is, as far as the address or the payload says."""
        if self.member:
            return str(member_of(frame.payload, path_of(self.member)) or "")
        return frame.address.topic.split("/")[self.at]

    def pattern(self, place: Sequence[str] | None, device: str) -> str:
        """A template, or with '+' for the device a filter. place: what stands at the levels `apart`."""
        levels = []
        for at in range(len(self.rows[0])):
            values = {row[at] for row in self.rows}
            value = next(iter(values))
            if at in self.apart and place is not None:
                value = place[self.apart.index(at)]
                levels.append(value)
            elif at == self.at:
                levels.append(device)
            else:
                levels.append(value if len(values) == 1 and is_literal(value) else "+")
        return "/".join(levels)


@dataclass(slots=True, eq=False)
class _Cell:
    """What devices send under one message's topics. sent: device -> shape and the types of JSON's members."""

    group: _Group
    place: tuple[str, ...]
    topics: list[str]
    frames: list[HeardFrame]
    sent: dict[str, tuple[str, dict[Path, str]]]

    def isjson_of(self) -> bool:
        """Whether all devices send JSON."""
        return all(shape == "json" for shape, _ in self.sent.values())

    def is_literal(self) -> bool:
        """Whether a filter can tell its topics from others."""
        return all(map(is_literal, self.place))

    def label(self) -> str:
        """What the topics say of the message."""
        rows = self.group.rows
        alike = [row[0] for row in zip(*rows, strict=True) if len(set(row)) == 1 and is_literal(row[0])]
        return clean("-".join(self.place)) or next(filter(None, map(clean, alike[::-1])), "value")


def _cut(name: str, frames: Sequence[HeardFrame]) -> list[HeardSource]:
    """The sources of a broker's topics: one for each group of topics, and one for each message that cannot
    be read with the others of its devices."""
    groups = _groups(frames)
    whole: list[_Cell] = []
    alone: list[_Cell] = []
    cells = [cell for group in groups for cell in _cells(group)]
    for cell in cells:
        against = whole if cell.isjson_of() else [other for other in cells if other is not cell]
        (whole if all(_agree(cell, other) for other in against) else alone).append(cell)
    literal = [cell for cell in alone if cell.is_literal()]
    found: list[HeardSource] = []
    for group in groups:
        several = any(cell.group is group for cell in alone)
        mine = [cell for cell in whole if cell.group is group and (cell.is_literal() or not several)]
        if mine:
            label = clean(group.rows[0][0]) if group.rooted else ""
            found.append(_source(f"{name}-{label}".rstrip("-"), group, mine, several))
    room = max(1, MOST_SOURCES - len(found))
    literal.sort(key=lambda cell: -len(cell.frames))  # stable: as they were heard
    if len(literal) > room:
        literal, rest = literal[: room - 1], literal[room - 1 :]
    else:
        rest = []
    for cell in literal:
        source = _source(f"{name}-{cell.label()}", cell.group, [cell], True)
        source.label = cell.label()
        found.append(source)
    while rest:  # all that is left of a group, together
        mine = [cell for cell in rest if cell.group is rest[0].group]
        rest = [cell for cell in rest if cell.group is not mine[0].group]
        source = _source(f"{name}-others", mine[0].group, mine, True)
        source.label, source.mixed = "others", len(mine) > 1
        found.append(source)
    return found


def _source(name: str, group: _Group, cells: Sequence[_Cell], several: bool) -> HeardSource:
    """several: the group has other messages, which are not to be taken."""
    place = cells[0].place if several and len(cells) == 1 else None
    device = f"payload:{group.member}" if group.member else ""
    topics = [topic for cell in cells for topic in cell.topics]
    filters = [group.pattern(cell.place if several else None, "+") for cell in cells]
    if any(set(one) <= {"+", "/"} for one in filters) and all(map(is_literal, topics)):
        filters = topics  # every topic of as many levels would be too many
    return HeardSource(
        name=name,
        kind="mqtt",
        template="" if device else group.pattern(place, "{device_id}"),
        device=device,
        topics=topics,
        filters=list(dict.fromkeys(filters)),
    )


def _groups(frames: Sequence[HeardFrame]) -> list[_Group]:
    """Topics of as many levels, the same of them empty, that begin alike; those of which the first level
    names the device begin as they like."""
    by_topic: dict[str, list[HeardFrame]] = {}
    for frame in frames:
        by_topic.setdefault(frame.address.topic, []).append(frame)
    shapes: dict[tuple[bool, ...], list[list[str]]] = {}
    for topic in by_topic:
        if topic.startswith("$"):  # the broker's own, which no filter that begins with '+' takes
            continue
        row = topic.split("/")
        shapes.setdefault(tuple(not level for level in row), []).append(row)
    groups: list[_Group] = []
    for rows in shapes.values():
        alike = _first_names(rows)
        rooted: dict[str, list[list[str]]] = {}
        for row in rows:
            if row[0] not in alike:
                rooted.setdefault(row[0], []).append(row)
        if len(rooted) > MOST_BEGINNINGS:
            groups.append(_group(rows, by_topic, 0, rooted=False))
            continue
        if alike:
            some = [row for row in rows if row[0] in alike]
            groups.append(_group(some, by_topic, 0, rooted=len(alike) == 1))
        groups += [
            _group(some, by_topic, int(_is_told(some)), rooted=True)
            for root, some in rooted.items()
            if is_literal(root)
        ]
    return groups


def _first_names(rows: Sequence[Sequence[str]]) -> set[str]:
    """The first levels that name devices: the same stands below several of them."""
    below: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        if row[0].lower() not in _ROLES:
            below.setdefault(tuple(row[1:]), set()).add(row[0])
    alike = set().union(*(some for some in below.values() if len(some) > 1))
    some = [row for row in rows if row[0] in alike]
    return alike if some and _device_level(some, 0) == 0 else set()


def _is_told(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a level behind the first may name a device."""
    return any(level and level.lower() not in _ROLES for row in rows for level in row[1:])


def _group(
    rows: list[list[str]], by_topic: dict[str, list[HeardFrame]], first: int, *, rooted: bool
) -> _Group:
    """first: the first level that may name the device."""
    frames = {"/".join(row): by_topic["/".join(row)] for row in rows}
    group = _Group(rows, frames, rooted, _device_level(rows, first))
    every = [frame for some in frames.values() for frame in some]
    member = naming_member(every)
    if member:
        named = {member_of(frame.payload, path_of(member)) for frame in every}
        if len(rows) == 1 or len(named) > len({row[group.at] for row in rows}):
            group.at, group.member = -1, member
    places: dict[str, list[list[str]]] = {}
    for frame in every:
        places.setdefault(group.device(frame), []).append(frame.address.topic.split("/"))
    group.apart = [
        at
        for at in range(len(rows[0]))
        if at != group.at
        and any(len({row[at] for row in some}) > 1 for some in places.values())
        and len({row[at] for row in rows}) <= MOST_PLACES
    ]
    return group


def _device_level(rows: Sequence[Sequence[str]], first: int) -> int:
    """The level that most looks like a device's name: with digits in it, and found in one place only."""

    def likely(at: int) -> tuple[bool, int, bool, int, int, int]:
        column = dict.fromkeys(row[at] for row in rows)
        told = [one for one in column if one.lower() not in _ROLES and one]
        digits = sum(any(map(str.isdigit, one)) for one in told)
        named = 2 if any(not one.isdigit() and any(map(str.isdigit, one)) for one in told) else digits > 0
        single = len({tuple(row[: at + 1]) for row in rows}) == len(column)
        return bool(told), named, single, digits, len(told), at

    return max(range(first, len(rows[0])), key=likely)


def _cells(group: _Group) -> list[_Cell]:
    cells: dict[tuple[str, ...], _Cell] = {}
    for topic, frames in group.frames.items():
        row = topic.split("/")
        place = tuple(row[at] for at in group.apart)
        cell = cells.setdefault(place, _Cell(group, place, [], [], {}))
        cell.topics.append(topic)
        cell.frames += frames
    for cell in cells.values():
        sent: dict[str, list[HeardFrame]] = {}
        for frame in cell.frames:
            if frame.payload:
                sent.setdefault(group.device(frame), []).append(frame)
        for device, frames in sent.items():
            most = most_sent(frames)
            cell.sent[device] = most.shape, _types(most.frames) if most.shape == "json" else {}
    return [cell for cell in cells.values() if cell.sent]


def _types(frames: Iterable[HeardFrame]) -> dict[Path, str]:
    """What each member of JSON is, by its path."""
    found: dict[Path, str] = {}
    for frame in frames:
        for path, value in leaves(json_of(frame.payload), ()):
            if value is not None:
                number = isinstance(value, int | float) and not isinstance(value, bool)
                found[path] = "number" if number else type(value).__name__
    return found


def _agree(one: _Cell, other: _Cell) -> bool:
    """Whether one product can read what a device sends under two messages' topics."""
    for device in one.sent.keys() & other.sent.keys():
        (shape, members), (other_shape, others) = one.sent[device], other.sent[device]
        if shape != "json" or other_shape != "json":
            return False
        for path in members.keys() & others.keys():
            if members[path] != others[path]:
                return False
            if str(path[-1]).lower() in _ANY and not one.group.member:
                return False
    return True


def _free(name: str, taken: set[str]) -> str:
    return next(one for one in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if one not in taken)
