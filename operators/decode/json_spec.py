"""What a `decode:` section of format json says, and the table of paths that steers the walk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from operators.batch import Bytes, Int32
from operators.contract.spec import Metric
from operators.decode import json_kernels as k
from operators.decode.derive_spec import Derived, parse_derive
from operators.decode.json_rows_kernels import EACH
from operators.decode.json_rows_spec import FRAME, ROW_KEYS, Path, Rows, TimePath, frame_time, parse_rows
from operators.document import Node, Problems, nearest

UNITS: Final = {"auto": k.UNIT_AUTO, "s": k.UNIT_S, "ms": k.UNIT_MS, "us": k.UNIT_US, "ns": k.UNIT_NS}
COLUMN_TYPES: Final = {"number": k.NUMBER, "integer": k.INTEGER, "boolean": k.BOOLEAN, "string": k.STRING}
UNIT_NS: Final = {k.UNIT_S: 10**9, k.UNIT_MS: 10**6, k.UNIT_US: 10**3, k.UNIT_NS: 1}
LARGEST_BELOW: Final = 4 * 10**18  # ns; a sum below which a time counts from arrival
LONGEST_PATH: Final = 64
MOST_NODES: Final = 100_000

_KEYS: Final = (
    *("format", "timestamp", "hub_timestamp", "metrics", "nodes", "binary", "encoding", "derive"),
)
_PART: Final = re.compile(
    r"(?P<dot>\.)?(?:(?P<name>[^.\[\]`]+)|`(?P<quoted>[^`]+)`|\[(?P<index>[0-9]{1,6}|\*)\])"
)


DEVICE_TIME: Final = TimePath(("device_timestamp",))
HUB_TIME: Final = TimePath(("hub_timestamp",))
NODES: Final[Path] = ("nodes",)


@dataclass(frozen=True, slots=True)
class JsonSpec:
    """A JSON layout that has passed its checks.

    container: the object whose members are metrics; fields: (name, path) instead; both empty with
    `binary`. internals: names of `_x` columns, which only `derive` sees. layout: what `binary`
    goes on into, with `encoding` auto, hex or base64. nodes: a list of devices and their hubs, which
    provisions them (`operators.decode.provisioning`).
    """

    timestamp: TimePath | None = DEVICE_TIME
    hub_timestamp: TimePath | None = HUB_TIME
    container: Path | None = ("data", "metrics")
    fields: tuple[tuple[str, Path], ...] = ()
    internals: tuple[str, ...] = ()
    binary: Path | None = None
    encoding: str = "auto"
    layout: Any = None
    derive: tuple[Derived, ...] = ()
    rows: Rows | None = None
    nodes: Path | None = NODES


def parse_path(text: str, *, each: bool = False) -> Path | str:
    """`data.t[0].v`, `` `odd name`.x ``; or, as a text, what is wrong with it. each: `[*]` may stand
    in it."""
    found: list[str | int] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        dotted = match is not None and match["dot"] is not None
        if match is None or dotted != (match["index"] is None and at > 0):
            return f"'{text[at : at + 12]}' is no part of a path; write names with dots and [0] for a place"
        if match["index"] == "*":
            if not each:
                return "[*] has no place here; one place of an array is written [0]"
            found.append(EACH)
        elif match["index"] is not None:
            found.append(int(match["index"]))
        else:
            found.append(match["name"] or match["quoted"])
        at = match.end()
    if not found:
        return "a path is expected, e.g. data.metrics"
    if len(found) > LONGEST_PATH:
        return f"a path of more than {LONGEST_PATH} parts"
    return tuple(found)


def path_text(path: Path) -> str:
    """A path as people write it."""
    text = ""
    for part in path:
        if part == EACH:
            text += "[*]"
        elif isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[^.\[\]`]+", part) else f"`{part}`"
            text += f".{name}" if text else name
    return text


def parse_json_spec(
    node: Node, metrics: Mapping[str, Metric], params: Mapping[str, float | str], problems: Problems
) -> JsonSpec:
    """The layout of a section whose `format` is json; what is wrong is in `problems`."""
    given = node.get("nodes")
    nodes: Path | None = NODES
    if "nodes" in node.keys:
        nodes = None if given is None or given.value is None else _path(given, problems)
    if nodes is not None and not isinstance(nodes[-1], str):
        problems.add(node, "a path that ends in a name is expected, e.g. data.children", key="nodes")
    return replace(_parse_json_spec(node, metrics, params, problems), nodes=nodes)


def _parse_json_spec(
    node: Node, metrics: Mapping[str, Metric], params: Mapping[str, float | str], problems: Problems
) -> JsonSpec:
    binary = node.get("binary")
    for key in node.keys:
        if key in ("metric", "value", "quality", "carry") and "rows" in node.keys and binary is not None:
            problems.add(node, f"'{key}' goes with rows of JSON, not with 'binary'", key=key)
        elif key in ROW_KEYS and "rows" not in node.keys and binary is None:
            problems.add(node, f"'{key}' goes with 'rows: \"path[*]\"'", key=key)
        elif key not in (*_KEYS, *ROW_KEYS) and binary is None:
            problems.add(node, f"unknown key{nearest(key, (*_KEYS, *ROW_KEYS))}", key=key)
    timestamp = _time(node, "timestamp", DEVICE_TIME, problems, rows="rows" in node.keys and binary is None)
    hub = _time(node, "hub_timestamp", HUB_TIME, problems)
    rows = _rows(node, timestamp, metrics, problems) if "rows" in node.keys else None
    if rows is not None and not isinstance(rows.path[0], str):  # the frame itself is an array
        timestamp = timestamp if "timestamp" in node.keys else None
        hub = hub if "hub_timestamp" in node.keys else None
    if binary is not None:
        if rows is not None:
            timestamp = frame_time(rows, timestamp, "timestamp" in node.keys)
        return _binary(node, binary, timestamp, hub, rows, metrics, params, problems)
    if (encoding := node.get("encoding")) is not None:
        problems.add(encoding, "'encoding' goes with 'binary'")
    container: Path | None = ("data", "metrics")
    if rows is not None:  # the element itself, or nothing for a tall payload
        container = None if rows.metric is not None else ()
        timestamp = frame_time(rows, timestamp, "timestamp" in node.keys)
    fields: list[tuple[str, Path]] = []
    if (given := node.get("metrics")) is not None:
        if given.is_map:
            container = None
            for name, child in given.items():
                if not name.startswith("_") and name not in metrics:
                    problems.add(given, f"no metric '{name}'{nearest(name, metrics)}", key=name)
                if (path := _path(child, problems)) is not None:
                    fields.append((name, path))
        else:
            container = _path(given, problems)
    internals = tuple(name for name, _ in fields if name.startswith("_"))
    return JsonSpec(
        timestamp=timestamp,
        hub_timestamp=hub,
        container=container,
        fields=tuple(fields),
        internals=internals,
        derive=parse_derive(node.get("derive"), metrics, params, internals, problems),
        rows=rows,
    )


def _rows(
    node: Node, timestamp: TimePath | None, metrics: Mapping[str, Metric], problems: Problems
) -> Rows | None:
    """What `rows` and its companions say."""
    given = node.get("rows")
    if given is None or not isinstance(given.value, str):
        problems.add(given or node, 'a path with [*] is expected, e.g. rows: "values[*]"')
        return None
    path = parse_path(given.value, each=True)
    if isinstance(path, str):
        problems.add(given, path)
        return None
    if EACH not in path:
        problems.add(given, f'[*] says which array holds the readings, e.g. "{given.value}[*]"')
        return None
    own = timestamp if "timestamp" in node.keys else None
    return parse_rows(node, path, own, metrics, _path, problems)


def _binary(
    node: Node,
    binary: Node,
    timestamp: TimePath | None,
    hub: TimePath | None,
    rows: Rows | None,
    metrics: Mapping[str, Metric],
    params: Mapping[str, float | str],
    problems: Problems,
) -> JsonSpec:
    from operators.decode.binary_spec import parse_binary_spec

    if (both := node.get("metrics")) is not None:
        problems.add(both, "either 'metrics' or 'binary'; a frame is one or the other")
    encoding = node.get("encoding")
    if encoding is not None and encoding.value not in ("hex", "base64"):
        problems.add(encoding, f"unknown encoding '{encoding.raw}'; hex or base64")
    ours = {"format", "timestamp", "hub_timestamp", "metrics", "nodes", "binary", "encoding", "rows"}
    if rows is not None:
        ours.add("device")
    itself = rows is not None and binary.value == "."
    inner = Node(
        {key: child for key, child in node.items() if key not in ours},
        node.file,
        node.line,
        node.column,
        node.path,
        keys={key: at for key, at in node.keys.items() if key not in ours},
    )
    return JsonSpec(
        timestamp=timestamp,
        hub_timestamp=hub,
        container=None,
        binary=() if itself else _path(binary, problems),
        rows=rows,
        encoding="auto" if encoding is None else str(encoding.value),
        layout=parse_binary_spec(inner, metrics, params, problems),
    )


def _path(node: Node | None, problems: Problems) -> Path | None:
    if node is None:
        return None
    if not isinstance(node.value, str):
        problems.add(node, "a path is expected, e.g. data.metrics")
        return None
    path = parse_path(node.value)
    if isinstance(path, str):
        problems.add(node, path)
        return None
    return path


def _time(node: Node, key: str, default: TimePath, problems: Problems, rows: bool = False) -> TimePath | None:
    given = node.get(key)
    if given is None:
        return default if key not in node.keys else None
    if given.value is None:
        return None
    if not given.is_map:
        path = _path(given, problems)
        return None if path is None else TimePath(path)
    unit = "ms"
    plus: Path | None = None
    below: int | None = None
    in_rows = key == "timestamp" and rows
    known = ("path", "unit", "plus", "relative_below") if in_rows else ("path", "unit")
    for name, child in given.items():
        if name == "unit":
            if child.value not in UNITS:
                problems.add(child, f"unknown unit '{child.raw}'; one of {', '.join(UNITS)}")
            else:
                unit = str(child.value)
        elif name == "plus" and in_rows:
            plus = _path(child, problems)
        elif name == "relative_below" and in_rows:
            if isinstance(child.value, bool) or not isinstance(child.value, int | float):
                problems.add(child, "a number is expected, in the unit of the time; SenML has 268435456")
            else:
                below = int(child.value)
        elif name in ("plus", "relative_below"):
            problems.add(given, f"'{name}' goes with 'timestamp' of 'rows'", key=name)
        elif name != "path":
            problems.add(given, f"unknown key{nearest(name, known)}", key=name)
    if given.get("path") is None:
        problems.add(given, "'path' is missing")
        return None
    if unit == "auto" and (plus is not None or below is not None):
        problems.add(given, "with 'plus' or 'relative_below' say the unit: s, ms, us or ns", key="unit")
        below = None
    if below is not None:
        below = max(-LARGEST_BELOW, min(LARGEST_BELOW, below * UNIT_NS[UNITS[unit]]))
    path = _path(given.get("path"), problems)
    return None if path is None else TimePath(path, unit, plus, below)


@dataclass(slots=True)
class _Place:
    children: dict[str | int, _Place] = field(default_factory=dict)
    actions: list[tuple[int, int]] = field(default_factory=list)
    container: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PathTable:
    """The paths of one product as the arrays that `json_kernels.walk` takes."""

    nodes: Int32
    keys: Bytes
    actions: Int32
    guess: Int32
    column_type: Bytes
    time_unit: Bytes
    most: int


def path_table(
    spec: JsonSpec, metrics: tuple[tuple[str, str], ...], device: Path | None, texts: Sequence[Path] = ()
) -> PathTable:
    """Compile a layout. metrics: (name, type) in file order, columns 0..M; the internals follow.
    device: where a frame names its device, if its payload does; texts: further spans, from the third on."""
    root = _Place()
    columns = [name for name, _ in metrics] + list(spec.internals)
    kinds = [COLUMN_TYPES[kind] for _, kind in metrics] + [k.ANY] * len(spec.internals)
    units = [UNITS["ms"], UNITS["ms"]]
    for which, time in enumerate((spec.timestamp, spec.hub_timestamp)):
        if time is not None:
            _at(root, time.path).actions.append((k.TIME, which))
            units[which] = UNITS[time.unit]
    if spec.container is not None:
        place = _at(root, spec.container)
        place.container = True
        for column, (name, _) in enumerate(metrics):
            place.children.setdefault(name, _Place()).actions.append((k.METRIC, column))
    for name, path in spec.fields:
        _at(root, path).actions.append((k.METRIC, columns.index(name)))
    for which, span in enumerate((device, spec.binary, *texts)):
        if span is not None:
            _at(root, span).actions.append((k.SPAN, which))
    return _compiled(root, np.array(kinds, np.uint8), np.array(units, np.uint8))


def _at(root: _Place, path: Path) -> _Place:
    place = root
    for part in path:
        place = place.children.setdefault(part, _Place())
    return place


def _compiled(root: _Place, kinds: Bytes, units: Bytes) -> PathTable:
    nodes: list[list[int]] = []
    actions: list[tuple[int, int]] = []
    keys = bytearray()

    def put(place: _Place, part: str | int) -> int:
        number = len(nodes)
        name = b"" if isinstance(part, int) else part.encode("utf-8")
        plain = not any(byte < 32 or byte in b'"\\' for byte in name)
        row = [-1] * k.NODE_WIDTH
        nodes.append(row)
        row[k.KEY_AT], row[k.KEY_LEN] = len(keys), -1 if isinstance(part, int) else len(name)
        row[k.INDEX] = part if isinstance(part, int) else -1
        row[k.CONTAINER], row[k.PLAIN] = int(place.container), int(plain)
        keys.extend(name)
        row[k.ACT] = len(actions)
        actions.extend(place.actions)
        row[k.ACT_END] = len(actions)
        before = -1
        for below, child in place.children.items():
            at = put(child, below)
            if before < 0:
                row[k.CHILD] = at
            else:
                nodes[before][k.NEXT] = at
            before = at
        row[k.END] = len(nodes)
        return number

    put(root, "")
    table = np.array(nodes, np.int32)
    guess = np.ascontiguousarray(table[:, [k.CHILD, k.NEXT]])
    plain = np.append(table[:, k.PLAIN] != 0, False) & np.append(table[:, k.INDEX] < 0, False)
    guess[~plain[guess]] = -1
    return PathTable(
        table,
        np.frombuffer(bytes(keys) or b"\0", np.uint8).copy(),
        np.array(actions or [(0, 0)], np.int32).reshape(-1, 2),
        guess,
        kinds if len(kinds) else np.zeros(1, np.uint8),
        units,
        max(1, max(row[k.ACT_END] - row[k.ACT] for row in nodes)),
    )


__all__ = ["FRAME", "JsonSpec", "Path", "PathTable", "Rows", "TimePath", "parse_json_spec", "parse_path"]
__all__ += ["DEVICE_TIME", "HUB_TIME", "UNITS", "UNIT_NS", "path_table", "path_text"]
