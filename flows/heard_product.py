"""A product file out of the frames of one kind of device: what they have in common, and the ranges heard."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from connectors.errors import ConfigError
from flows.heard import HeardFrame, counted
from flows.heard_kinds import OBJECTS, WITH_UNIT, Kind, body_of, unwritten
from flows.heard_names import UNIT_NAMES, metric_names, ucum
from flows.heard_rows import Path, Rows, member, rows_of, word
from flows.plant_products import read_products
from flows.scaffold import (
    COMMA_NUMBER,
    MOST_FIELDS,
    NUMBER,
    PERCENT,
    TEMPERATURE,
    cell_value,
    is_time,
    leaves,
    metric_name,
    separator_of,
    time_form,
    time_unit,
    yaml_text,
)
from flows.scaffold_binary import binary_section
from operators.decode.json_spec import path_text
from operators.document import Problems, load_yaml

_SHOWN: Final = 6  # texts that a comment lists
_ANY: Final = frozenset({"", "data", "out", "pub", "raw", "state", "status", "telemetry", "up", "uplink"})
_BYTES: Final = re.compile(r"payload|raw|bin|hex|bytes|^data$", re.IGNORECASE)


@dataclass(slots=True)
class Heard:
    """What was heard of one value: in how many frames, and what."""

    frames: int = 0
    low: float = math.inf
    high: float = -math.inf
    texts: dict[str, None] = field(default_factory=dict)
    booleans: int = 0
    times: int = 0
    sample: Any = None
    unit: str = ""  # as the device writes it beside the value

    def take(self, value: Any) -> None:
        """Take in a value of one more frame."""
        if value is None:
            return
        self.frames += 1
        self.sample = value if self.sample is None else self.sample
        if isinstance(value, bool):
            self.booleans += 1
        elif isinstance(value, int | float):
            number = _finite(value)
            if number is not None:
                self.low, self.high = min(self.low, number), max(self.high, number)
        elif len(self.texts) <= _SHOWN:
            self.texts[str(value)] = None


def product_files(product: str, kind: Kind) -> dict[str, str]:
    """The files of a product, by their path in the plant: the product, and where no layout can say what
    was heard, a Python function that decodes it. Raises `ConfigError` as `product_text`."""
    from flows.heard_python import python_product  # it is made of what this module has

    path = f"products/{product}"
    made = python_product(product, kind, head_text(product, kind))
    if made is not None:
        text, function = made
        problems = Problems()
        nodes = load_yaml(text, "product", problems)
        read_products({"product": nodes}, {}, problems, {f"{path}.py": function.encode()})
        if not problems.errors:
            return {f"{path}.yaml": text, f"{path}.py": function}
    return {f"{path}.yaml": product_text(product, kind)}


def product_text(product: str, kind: Kind) -> str:
    """The text of a product file for a kind. Where what it holds would make no product that passes
    `check`, one that keeps its frames as hex; raises `ConfigError` where nothing could be a metric."""
    sections = dict.fromkeys(OBJECTS, _objects) | {"csv": _csv, "binary": _binary}
    head = head_text(product, kind)
    text = head + sections[kind.shape](kind)
    problems = Problems()
    nodes = load_yaml(text, "product", problems)
    read_products({"product": nodes}, {}, problems)
    return head + _lengths(kind) if problems.errors else text


def head_text(product: str, kind: Kind) -> str:
    """The beginning of a product file."""
    return _HEAD.format(
        product=yaml_text(product),
        frames=counted(len(kind.frames), "frame"),
        devices=counted(len(kind.devices), "device"),
    )


def _objects(kind: Kind) -> str:
    bodies = [body_of(frame.payload, kind.shape) for frame in kind.frames]
    if kind.shape == "json" and (rows := rows_of(bodies)) is not None:
        return _rows(kind, rows, bodies)
    if any(isinstance(body, list) for body in bodies):  # of which only rows are read
        return _lengths(kind)
    time, fields = object_fields(kind, bodies)
    lines = ["decode:", f"  format: {kind.shape}"]
    if time is None:
        lines.append("  timestamp: null                # no time was found; that of arrival stands in")
    else:
        lines.append(_timestamp(path_text(time[0]), [time[1].sample]))
    lines.append("  metrics:                       # metric: where it stands")
    lines += [f"    {yaml_text(name)}: {yaml_text(path_text(path))}" for name, (path, _) in fields.items()]
    metrics = metric_lines({name: one for name, (_, one) in fields.items()}, len(kind.frames))
    return "\n".join([*lines, *metrics])


def object_fields(
    kind: Kind, bodies: Sequence[Any]
) -> tuple[tuple[Path, Heard] | None, dict[str, tuple[Path, Heard]]]:
    """The time of objects, if there is one, and their values by the names that they get; raises
    `ConfigError` where there is none."""
    heard = _with_units(_members(bodies))
    time = next((path for path, one in heard.items() if one.frames and one.times == one.frames), None)
    names = metric_names(path for path in [one for one in heard if one != time][:MOST_FIELDS])
    if not names:
        raise ConfigError(f"{kind.devices[0]}: its frames hold no value that could become a metric")
    fields = {name: (path, heard[path]) for path, name in names.items()}
    return None if time is None else (time, heard[time]), fields


def _with_units(heard: dict[Path, Heard]) -> dict[Path, Heard]:
    """The members without those that only name the unit of a number beside them."""
    found = dict(heard)
    for path, one in heard.items():
        if not (path and word(path[-1]) in UNIT_NAMES and len(one.texts) == 1 and one.low > one.high):
            continue
        beside = [
            other
            for at, other in heard.items()
            if len(at) == len(path) and at[:-1] == path[:-1] and other.low <= other.high
        ]
        if len(beside) == 1:
            beside[0].unit = next(iter(one.texts))
            del found[path]
    return found


def _members(bodies: Iterable[Any]) -> dict[Path, Heard]:
    """What was heard of each member, by its path."""
    heard: dict[Path, Heard] = {}
    for body in bodies:
        for path, value in leaves(body, ()):
            one = heard.setdefault(path, Heard())
            one.take(value)
            one.times += is_time(path, value)
    return heard


def _rows(kind: Kind, rows: Rows, bodies: Sequence[Any]) -> str:
    """A reading, or a metric's value, in each element of an array."""
    elements = [element for body in bodies for element in rows.elements(body)]
    fields: dict[str, tuple[str, Heard]] = {}
    if rows.metric:
        for element in elements:
            name = element[rows.metric]
            fields.setdefault(name, (name, Heard()))[1].take(element.get(rows.value))
    else:
        heard = _with_units(_members(elements))
        paths = [path for path in heard if path not in ((rows.device,), (rows.time,))]
        for path, name in metric_names(paths[:MOST_FIELDS]).items():
            fields[name] = (path_text(path), heard[path])
    if not fields:
        raise ConfigError(f"{kind.devices[0]}: its frames hold no value that could become a metric")
    lines = ["decode:", "  format: json", f"  rows: {yaml_text(path_text(rows.array) + '[*]')}"]
    named = {"device": rows.device, "metric": rows.metric, "value": rows.value, "quality": rows.quality}
    lines += [f"  {key}: {yaml_text(path_text((name,)))}" for key, name in named.items() if name]
    if rows.time:
        lines.append(_timestamp(path_text((rows.time,)), [one[rows.time] for one in elements]))
    elif rows.of_frame is not None:
        there = [member(body, rows.of_frame) for body in bodies]
        lines.append(_timestamp(f"$.{path_text(rows.of_frame)}", there))
    else:
        lines.append("  timestamp: null                # no time was found; that of arrival stands in")
    if not rows.metric:
        lines.append("  metrics:                       # metric: where it stands in an element")
        lines += [f"    {yaml_text(name)}: {yaml_text(path)}" for name, (path, _) in fields.items()]
    many = len(elements) if not rows.metric else math.inf
    return "\n".join([*lines, *metric_lines({name: one for name, (_, one) in fields.items()}, many)])


def _timestamp(path: str, values: Sequence[Any]) -> str:
    unit, where = time_unit(values[0]), yaml_text(path)
    return f"  timestamp: {where if unit in ('', 'ms') else f'{{path: {where}, unit: {unit}}}'}"


def _csv(kind: Kind) -> str:
    header = kind.frames[0].header
    if not header and (written := unwritten(kind.frames)) is not None:
        told = "  format: binary\n  encoding: hex                  # the bytes are written as text"
        return _binary(replace(kind, frames=written)).replace("  format: binary", told, 1)
    if not header and (units := _units(kind)):
        return _with_unit(kind, units)
    separator = separator_of(header or kind.frames[0].payload.decode()) or ","
    rows = [_cells(frame, separator) for frame in kind.frames]
    names = next(csv.reader([header], delimiter=separator)) if header else []
    comma = separator != "," and any(COMMA_NUMBER.match(cell) for row in rows for cell in row)
    time, columns = "", dict[str, tuple[str, Heard]]()
    for at in range(max(map(len, rows))):
        told = names[at].strip() if at < len(names) else ""
        place = yaml_text(told) if told else str(at + 1)
        cells = [row[at] for row in rows if at < len(row)]
        forms = {time_form(told, cell) for cell in cells if cell}
        if not time and len(forms) == 1 and (form := forms.pop()) is not None:
            time = f"{{column: {place}{form}}}"
            continue
        one = Heard()
        for cell in cells:
            one.take(cell_value(cell, comma))
        columns[metric_name((told or _column(kind, rows, at),), columns)] = (place, one)
    if not columns:
        raise ConfigError(f"{kind.devices[0]}: its rows hold no column that could become a metric")
    lines = ["decode:", "  format: csv"]
    lines += [f"  separator: {json.dumps(separator)}"] * (separator != ",")
    lines += ['  decimal: ","'] * comma
    if time:
        lines.append(f"  timestamp: {time}   # without a zone in the text: UTC; or add zone: Europe/Berlin")
    lines.append("  columns:                       # metric: the name of its column, or its place from 1")
    lines += [f"    {yaml_text(name)}: {place}" for name, (place, _) in columns.items()]
    return "\n".join([*lines, *metric_lines({name: one for name, (_, one) in columns.items()}, len(rows))])


def _units(kind: Kind) -> set[str]:
    """The units behind numbers where every frame is `21.5 °C`; none where some are not."""
    texts = [WITH_UNIT.match(frame.payload.decode().strip()) for frame in kind.frames]
    return {found[2] for found in texts if found} if all(texts) else set()


def _with_unit(kind: Kind, units: set[str]) -> str:
    one = Heard(unit=next(iter(units)) if len(units) == 1 else "")
    for frame in kind.frames:
        one.take(float(frame.payload.split()[0]))
    name = metric_name((_column(kind, [[""]], 0),), ())
    lines = ["decode:", "  format: csv", '  separator: " "', "  columns:", f"    {yaml_text(name)}: 1"]
    if not one.unit:
        lines.append(f"  # TODO: units differ: {', '.join(sorted(units))[:80]}")
    return "\n".join([*lines, *metric_lines({name: one}, len(kind.frames))])


def _column(kind: Kind, rows: list[list[str]], at: int) -> str:
    """What a column without a name is called: a topic a value has its word."""
    if max(map(len, rows)) > 1:
        return f"column{at + 1}"
    words = {frame.address.topic.rpartition("/")[2] for frame in kind.frames}
    last = next(iter(words))
    if kind.label:
        return last
    return last if len(words) == 1 and last not in kind.devices and last.lower() not in _ANY else "value"


def _cells(frame: HeardFrame, separator: str) -> list[str]:
    row = frame.payload.decode().strip("\r\n")
    return [cell.strip() for cell in next(csv.reader([row], delimiter=separator), [])]


def _binary(kind: Kind) -> str:
    shapes = sorted({(len(frame.payload), frame.address.port) for frame in kind.frames})
    if len(shapes) == 1:
        (_, port), first = shapes[0], kind.frames[0].payload
        return binary_section(first, port, [frame.payload for frame in kind.frames[1:1000]])
    return _lengths(kind)


def _lengths(kind: Kind) -> str:
    """A layout of frames of any length, with those that were heard."""
    shapes = sorted({(len(frame.payload), frame.address.port) for frame in kind.frames})
    counts = {size: sum(len(frame.payload) == size for frame in kind.frames) for size, _ in shapes}
    told = [f"  #   {size} bytes: {count}" for size, count in counts.items()]
    return "\n".join([_BINARY_HEAD, *told[:50], _BINARY])


def metric_lines(values: dict[str, Heard], frames: float) -> list[str]:
    """`metrics:` of a product file. frames: of how many a required metric is in each."""
    lines = ["", _METRICS]
    return [
        *lines,
        *(f"  {yaml_text(name)}: {_metric(name, one, frames)}" for name, one in values.items()),
        "",
    ]


def _metric(name: str, one: Heard, frames: float) -> str:
    required = ["required: true"] * (one.frames == frames)
    if one.frames == 0:
        return "{}                          # always null: taken for a number"
    if one.texts:
        shown = [json.dumps(text[:40], ensure_ascii=False) for text in one.texts if text.isprintable()]
        heard = ", ".join(shown[:_SHOWN]) + ", ..." * (len(one.texts) > _SHOWN)
        if one.low <= one.high:  # a number, and a word where there is none
            low, high = widened(name, one.low, one.high)
            numbers = f"range: [{low}, {high}], on_breach: bad"
            return f"{{{numbers}}}   # heard: {one.low:.6g} to {one.high:.6g}, and {heard}"
        return f"{{{', '.join(['type: string', *required])}}}   # heard: {heard}{_hint(name, one)}"
    if one.booleans == one.frames:
        return f"{{{', '.join(['type: boolean', *required])}}}"
    if one.low > one.high:
        return "{}                          # no number that can be one was heard"
    low, high = widened(name, one.low, one.high)
    unit = ucum(one.unit, name)
    parts = [f"unit: {yaml_text(unit)}"] * bool(unit) + [f"range: [{low}, {high}]", *required]
    told = f" {one.unit[:20]}" * one.unit.isprintable()
    return f"{{{', '.join(parts)}}}   # heard: {one.low:.6g} to {one.high:.6g}{told.rstrip()}"


def _hint(name: str, one: Heard) -> str:
    """What else a text may be."""
    if all(NUMBER.match(text) for text in one.texts):
        return "; numbers written as texts: a Python function can make numbers of them (docs/decode.md)"
    if _BYTES.search(name) and all(_is_bytes(text) for text in one.texts):
        return "; bytes written as text? decode them with `binary: PATH` (docs/decode.md)"
    return ""


def _is_bytes(text: str) -> bool:
    return len(text) >= 8 and re.fullmatch(r"[0-9A-Za-z+/_-]+={0,2}", text) is not None and len(text) % 2 == 0


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return None
    return number if math.isfinite(number) else None


def widened(name: str, low: float, high: float) -> tuple[str, str]:
    """A range to start from: on each side at least as much room again as the span that was heard and as
    the largest value, ends rounded away from it to 1, 2 or 5 times a power of ten; values that were never
    negative stay so. Names of temperatures and percentages have their usual ranges where these hold."""
    if TEMPERATURE.search(name) and low >= -40 and high <= 150:
        return "-40", "150"
    if PERCENT.search(name) and low >= 0 and high <= 100:
        return "0", "100"
    room = max(high - low, abs(low), abs(high)) or 1.0
    return "0" if low >= 0 else "-" + _round(max(room - low, 1e-6)), _round(max(high + room, 1.0))


def _round(value: float) -> str:
    if not math.isfinite(value) or value > 1e300:
        return "1e300"
    power = 10.0 ** math.floor(math.log10(value))
    top = next(power * step for step in (1, 2, 5, 10, 20) if power * step >= value)
    return f"{int(top)}" if 1 <= top < 1e15 else f"{top:.0e}"


_HEAD: Final = """\
# yaml-language-server: $schema=../.schema/product.json
# Made by `penstock new --from` of {frames} of {devices}. Names and units are yours to say.
productId: {product}
version: 1
"""
_METRICS: Final = """\
metrics:   # ranges are wider than what was heard; add unit (UCUM, e.g. Cel, bar, kW)"""
_BINARY_HEAD: Final = """\
decode:
  format: binary
  # TODO: a case for each kind of frame. These lengths were heard:"""
_BINARY: Final = """\
  # `penstock new --product NAME --from-frame HEX` makes a layout of one frame, to copy from.
  fields:
    frame: {at: 0, text: hex, size: rest}   # the bytes as they are, until they have names

metrics:
  frame: {type: string, required: true}
"""
