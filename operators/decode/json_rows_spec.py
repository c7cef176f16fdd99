"""What `rows` and the keys beside it say about arrays of readings in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from operators.document import Node, Problems, nearest

Path: TypeAlias = tuple[str | int, ...]
"""Members by name, array places by number; in the path of `rows`, EACH is every element."""

FRAME: Final = "$"  # first part of a path in a row that begins at the frame
ROW_KEYS: Final = ("rows", "device", "metric", "value", "quality", "carry")
MOST_PATHS: Final = 8


class TimePath(NamedTuple):
    """Where a time stands and in which unit it is when it is a number.

    Of rows alone: plus: a time that is added to it; below: a sum of fewer nanoseconds than these counts
    from arrival.
    """

    path: Path
    unit: str = "ms"
    plus: Path | None = None
    below: int | None = None


class Naming(NamedTuple):
    """A name out of texts (or numbers) of the row: all of them one behind the other with `join`, else the
    first that stands. words: what stands for such a name."""

    paths: tuple[Path, ...]
    join: bool = False
    words: Mapping[str, str] = {}


class Rows(NamedTuple):
    """Arrays whose elements are readings. All paths but `path` begin at the element, or, where the
    first part is FRAME, at the frame (device and timestamp alone).

    device: the name of each reading's device. metric, values: a tall payload, one metric an element, its
    value the first of `values` that stands; a number has `plus` added. quality: of all values of an
    element. timestamp: its time; None: that of the frame. carry: paths whose value holds for the
    elements behind it in the frame too, until another stands there.
    """

    path: Path
    device: Naming | None = None
    metric: Naming | None = None
    values: tuple[Path, ...] = ()
    plus: Path | None = None
    quality: Path | None = None
    timestamp: TimePath | None = None
    carry: tuple[Path, ...] = ()


ReadPath: TypeAlias = Callable[[Node | None, Problems], Path | None]


def parse_rows(
    node: Node,
    path: Path,
    own: TimePath | None,
    metrics: Mapping[str, Any],
    read: ReadPath,
    problems: Problems,
) -> Rows:
    """The keys beside `rows`, whose own path has been read. own: a `timestamp` that is given."""
    device = _naming(node, "device", read, problems)
    metric = _naming(node, "metric", read, problems)
    values, plus = _values(node.get("value"), read, problems)
    quality = read(node.get("quality"), problems)
    if (metric is None) != (not values) and ("metric" in node.keys) != ("value" in node.keys):
        missing = "metric" if metric is None else "value"
        problems.add(node, f"'metric' and 'value' stand together; '{missing}' is missing", key="rows")
    if metric is not None and (both := node.get("metrics")) is not None:
        problems.add(both, "either 'metrics' or 'metric' and 'value'")
    in_row = {
        "metric": metric.paths if metric else (),
        "value": (*values, *((plus,) if plus else ())),
        "quality": (quality,) if quality else (),
    }
    for key, found in in_row.items():
        if any(one[0] == FRAME for one in found):
            problems.add(node, "stands in the row; only device and timestamp may begin with $.", key=key)
    if device is not None:
        if (FRAME,) in device.paths:
            problems.add(node, "a path is expected behind '$.'", key="device")
        elif len(device.paths) > 1 and any(one[0] == FRAME for one in device.paths):
            problems.add(node, "one path may begin with $., not several", key="device")
        if node.get("binary") is not None and (len(device.paths) > 1 or device.join):
            problems.add(node, "with 'binary' one path is expected", key="device")
        if device.words:
            problems.add(node, "'map' goes with 'metric'; devices.csv names the devices", key="device")
            device = device._replace(words={})
    if metric is not None and metrics:
        for name in metric.words.values():
            if name not in metrics:
                where = node.get("metric")
                problems.add(where or node, f"no metric '{name}'{nearest(name, metrics)}", key="map")
    if own is not None and own.path[0] == FRAME:
        if own.plus is not None:
            problems.add(node, "'plus' goes with a time in the row, not with $.", key="timestamp")
        own = None
    rows = Rows(path, device, metric, values, plus, quality, own)
    return rows._replace(carry=_carried(node, rows, metrics, read, problems))


def _naming(node: Node, key: str, read: ReadPath, problems: Problems) -> Naming | None:
    """A path, `{join: [..]}`, or `{first: [..], map: {..}}`."""
    given = node.get(key)
    if given is None or not given.is_map:
        path = read(given, problems)
        return None if path is None else Naming((path,))
    for name in given.keys:
        if name not in ("first", "join", "map"):
            problems.add(given, f"unknown key{nearest(name, ('first', 'join', 'map'))}", key=name)
    which = [name for name in ("first", "join") if name in given.keys]
    if len(which) != 1:
        if which or set(given.keys) <= {"map"}:
            problems.add(given, "one of 'first' and 'join' is expected, a list of paths")
        return None
    paths = _paths(given.get(which[0]), read, problems)
    words: dict[str, str] = {}
    table = given.get("map")
    if table is not None and table.is_map:
        words = {name: str(child.value) for name, child in table.items()}
    elif table is not None:
        problems.add(table, 'names and metrics are expected, e.g. {"%RH": humidity}')
    return Naming(paths, which[0] == "join", words) if paths else None


def _values(given: Node | None, read: ReadPath, problems: Problems) -> tuple[tuple[Path, ...], Path | None]:
    """A path, or `{first: [..], plus: path}`."""
    if given is None or not given.is_map:
        path = read(given, problems)
        return ((path,) if path else ()), None
    for name in given.keys:
        if name not in ("first", "plus"):
            problems.add(given, f"unknown key{nearest(name, ('first', 'plus'))}", key=name)
    if given.get("first") is None:
        problems.add(given, "'first' is missing, a list of paths of which the first that stands is taken")
        return (), None
    return _paths(given.get("first"), read, problems), read(given.get("plus"), problems)


def _paths(given: Node | None, read: ReadPath, problems: Problems) -> tuple[Path, ...]:
    """A list of paths, or one."""
    if given is None:
        return ()
    listed = list(given.value) if given.is_list else [given]
    found = [path for one in listed if (path := read(one, problems)) is not None]
    if not listed or len(listed) > MOST_PATHS:
        problems.add(given, f"1 to {MOST_PATHS} paths are expected")
    return tuple(found)


def _carried(
    node: Node, rows: Rows, metrics: Mapping[str, Any], read: ReadPath, problems: Problems
) -> tuple[Path, ...]:
    """The paths of `carry`; each must be one that something reads."""
    given = node.get("carry")
    if given is None:
        return ()
    known: set[Path] = {*rows.values, *(rows.metric.paths if rows.metric else ())}
    known |= {*(rows.device.paths if rows.device else ())}
    known |= {path for path in (rows.plus, rows.quality) if path is not None}
    if rows.timestamp is not None:
        known |= {rows.timestamp.path} | ({rows.timestamp.plus} if rows.timestamp.plus else set())
    fields, silent = node.get("metrics"), Problems()
    if fields is not None and fields.is_map:
        known |= {path for _, child in fields.items() if (path := read(child, silent)) is not None}
    elif rows.metric is None:  # the metrics are members of the element, or of an object in it
        container = read(fields, silent) or ()
        known |= {(*container, name) for name in metrics}
    found = []
    for one in list(given.value) if given.is_list else [given]:
        path = read(one, problems)
        if path is not None and path not in known:
            problems.add(one, f"nothing reads '{one.value}'; leave it away, or name it beside 'rows'")
        elif path is not None:
            found.append(path)
    return tuple(dict.fromkeys(found))


def frame_time(rows: Rows, timestamp: TimePath | None, given: bool) -> TimePath | None:
    """The device's time that stands once for the frame, beside that of each row."""
    if timestamp is None or not given:
        return timestamp
    if timestamp.path[0] == FRAME and len(timestamp.path) > 1:
        return TimePath(timestamp.path[1:], timestamp.unit)
    return None if rows.timestamp is not None else timestamp
