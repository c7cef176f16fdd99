"""A product file out of one sample frame: a start that decodes the sample, for a person to go on from.

What the sample tells is written down (paths, types, columns, bytes, a check that fits); what it cannot
tell is a guess, and a comment says so.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from connectors.errors import ConfigError
from flows.plant_products import read_products
from flows.scaffold_binary import binary_section
from flows.vectors import sample_answer
from operators.decode.json_spec import path_text
from operators.document import Problems, load_yaml, scalar

MOST_FIELDS: Final = 200
_TIME_NAMES: Final = ("device_timestamp", "timestamp", "datetime", "time", "ts", "date", "t", "at")
PERCENT: Final = re.compile(r"hum|percent|pct|soc|level|battery_(?:p|l)|(?:^|_)rh(?:$|_)", re.IGNORECASE)
TEMPERATURE: Final = re.compile(r"temp|(?:^|_)t(?:$|_)|degc|celsius", re.IGNORECASE)
COMMA_NUMBER: Final = re.compile(r"[-+]?[0-9]+,[0-9]+\Z")
NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_TIME_FORMATS: Final = ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S")


@dataclass(slots=True)
class Sample:
    """A frame. header: the line with a CSV file's column names; port: -1 = none."""

    payload: bytes
    header: str = ""
    port: int = -1


def scaffold(product: str, sample: Sample) -> str:
    """The text of a product file that passes `check` and decodes the sample, which is its first vector.

    Raises `ConfigError` where no product can be made of the sample.
    """
    if not sample.payload:
        raise ConfigError("the sample frame is empty")
    head = _HEAD.format(product=yaml_text(product))
    try:
        kind, body = _section(sample)
        return head + body + _vector(head + body, sample, kind)
    except _NoCsvError:
        body = binary_section(sample.payload, sample.port)
        return head + body + _vector(head + body, sample, "binary")


class _NoCsvError(Exception):
    """What looked like a row of CSV is none."""


def _section(sample: Sample) -> tuple[str, str]:
    """The format, and `decode:` with `metrics:`."""
    try:
        text = sample.payload.decode("utf-8")
    except UnicodeDecodeError:
        return "binary", binary_section(sample.payload, sample.port)
    if text.lstrip()[:1] in ("{", "["):
        try:
            return "json", _json_section(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the sample looks like JSON, but is none: {error}") from error
    if sample.header or (text.replace("\t", " ").isprintable() and separator_of(text)):
        return "csv", _csv_section(text, sample.header)
    return "binary", binary_section(sample.payload, sample.port)


# JSON


def _json_section(body: Any) -> str:
    found = list(leaves(body, ()))
    time = next((path for path, value in found if is_time(path, value)), None)
    fields: dict[str, tuple[str, Any]] = {}
    for path, value in found:
        if path != time and len(fields) < MOST_FIELDS:
            fields[metric_name(path, fields)] = (path_text(path), value)
    if not fields:
        raise ConfigError("the sample holds no value that could become a metric")
    lines = ["decode:", "  format: json"]
    if time is not None:
        value = dict(found)[time]
        unit = time_unit(value)
        where = yaml_text(path_text(time))
        told = where if unit in ("", "ms") else f"{{path: {where}, unit: {unit}}}"
        lines.append(f"  timestamp: {told}" + ("" if not unit else f"   # looks like {unit} since 1970"))
    else:
        lines.append(
            "  timestamp: null                # no time was found in the sample; that of arrival stands in"
        )
    lines.append("  metrics:                       # metric: where it stands")
    lines += [f"    {yaml_text(name)}: {yaml_text(path)}" for name, (path, _) in fields.items()]
    return "\n".join([*lines, *_metrics({name: value for name, (_, value) in fields.items()})])


def leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value below a JSON value that is none of object and array, with its path."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key and "`" not in key and key.isprintable():
                yield from leaves(below, (*path, key))
    elif isinstance(value, list):
        for at, below in enumerate(value[:16]):
            yield from leaves(below, (*path, at))
    elif path:
        yield path, value


def is_time(path: tuple[str | int, ...], value: Any) -> bool:
    """Whether a JSON value is the time of its frame, by its name and its size or form."""
    name = next((part for part in reversed(path) if isinstance(part, str)), "").lower()
    if isinstance(value, str):
        return _is_iso(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    likely = name in _TIME_NAMES or name.endswith(("timestamp", "_time", "_ts"))
    return number and likely and bool(time_unit(value))


def _is_iso(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return len(text) >= 16


def time_unit(value: Any) -> str:
    """The unit in which a number would be a time between 2001 and 2100; "" for none."""
    if not isinstance(value, int | float):
        return ""
    for unit, size in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        if 978_307_200 * size <= value < 4_102_444_800 * size:
            return unit
    return ""


def metric_name(path: tuple[str | int, ...], taken: Any) -> str:
    """A metric's name: the last part of its path, or as many as make it another than the others."""
    parts = [str(part) for part in path]
    for many in range(1, len(parts) + 1):
        name = _clean("_".join(parts[-many:]))
        if not name.isdigit() and is_free(name, taken):
            return name
    return next(name for n in range(2, 10_000) if is_free(name := f"{_clean('_'.join(parts))}_{n}", taken))


def _clean(text: str) -> str:
    return re.sub(r"[^\w.()%/ -]+", "_", text).strip("_ ")[:100] or "value"


def is_free(name: str, taken: Any) -> bool:
    """Whether a name, and its column in the historian, is nobody else's."""
    columns = {re.sub(r"[^A-Za-z0-9_]", "_", other) for other in taken}
    return re.sub(r"[^A-Za-z0-9_]", "_", name) not in columns


# CSV


def separator_of(text: str) -> str:
    """What divides the cells of a line; "" where nothing does."""
    line = text.strip("\r\n")
    counts = {one: line.count(one) for one in (";", "\t", "|", ",")}
    best = max(counts, key=lambda one: counts[one])
    return best if counts[best] and "\n" not in line else ""


def _csv_section(row: str, header: str) -> str:
    separator = separator_of(header or row) or ","
    cells = next(csv.reader([row.strip("\r\n")], delimiter=separator))
    names = next(csv.reader([header], delimiter=separator)) if header else []
    comma = separator != "," and any(COMMA_NUMBER.match(cell.strip()) for cell in cells)
    columns: dict[str, tuple[str, Any]] = {}
    time = ""
    for at, cell in enumerate(cells, 1):
        told = names[at - 1].strip() if at <= len(names) else ""
        place = yaml_text(told) if told else str(at)
        if not time and (form := time_form(told, cell.strip())) is not None:
            time = f"{{column: {place}{form}}}"
            continue
        value = cell_value(cell.strip(), comma)
        columns[metric_name((told or f"column{at}",), columns)] = (place, value)
    if not columns:
        raise ConfigError("the sample holds no column that could become a metric")
    lines = ["decode:", "  format: csv"]
    if separator != ",":
        lines.append(f"  separator: {json.dumps(separator)}")
    if comma:
        lines.append('  decimal: ","')
    if time:
        lines.append(f"  timestamp: {time}   # without a zone in the text: UTC; or add zone: Europe/Berlin")
    lines.append("  columns:                       # metric: the name of its column, or its place from 1")
    lines += [f"    {yaml_text(name)}: {place}" for name, (place, _) in columns.items()]
    return "\n".join([*lines, *_metrics({name: value for name, (_, value) in columns.items()})])


def time_form(name: str, cell: str) -> str | None:
    """How a cell is a time: the rest of its `timestamp:`; None where it is none."""
    if _is_iso(cell):
        return ""
    if NUMBER.match(cell):
        likely = name.lower() in _TIME_NAMES or name.lower().endswith(("timestamp", "_time", "_ts"))
        unit = time_unit(float(cell)) if likely or not name else ""
        return (f", unit: {unit}" if unit != "ms" else "") if unit else None
    for form in _TIME_FORMATS:
        try:
            datetime.strptime(cell, form)
        except ValueError:
            continue
        return f', format: "{form}"'
    return None


def cell_value(cell: str, comma: bool) -> Any:
    plain = cell.replace(",", ".") if comma else cell
    if NUMBER.match(plain):
        return float(plain)
    return {"true": True, "false": False, "": None}.get(cell.lower(), cell)


# metrics and the vector


def _metrics(values: dict[str, Any]) -> list[str]:
    """`metrics:` with types as the sample has them, and ranges to start from."""
    lines = ["", _METRICS]
    for name, value in values.items():
        lines.append(f"  {yaml_text(name)}: {_metric(name, value)}")
    return [*lines, ""]


def _metric(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "{type: boolean}"
    if isinstance(value, str):
        return "{type: string}"
    if value is None:
        return "{}                          # null in the sample: taken for a number"
    return "{" + f"range: {_range(name, float(value))}" + "}"


def _range(name: str, value: float) -> str:
    if TEMPERATURE.search(name) and -40 <= value <= 150:
        return "[-40, 150]"
    if PERCENT.search(name) and 0 <= value <= 100:
        return "[0, 100]"
    top = 100.0
    while top < abs(value) * 10 and top < 1e300:
        top *= 10
    shown = f"{int(top)}" if top < 1e15 else f"{top:.0e}"
    return f"[{'0' if value > 0 else f'-{shown}'}, {shown}]"


def _vector(text: str, sample: Sample, kind: str) -> str:
    """`vectors:` with the sample and what it gives; raises `ConfigError` where it gives nothing."""
    problems = Problems()
    nodes = load_yaml(text, "product", problems)
    products = read_products({"product": nodes}, {}, problems)
    if problems.errors or not products.good:
        raise ConfigError(f"no product can be made of this sample:\n{problems.render()}")
    (made,) = products.good.values()
    answer = sample_answer(made, sample.payload, sample.port, sample.header)
    empty = len(answer.readings) != 1 or not answer.readings[0][1]
    if kind == "csv" and not sample.header and (answer.reject is not None or empty):
        raise _NoCsvError
    if answer.reject is not None or empty:
        told = answer.reject[2] if answer.reject is not None else "no reading comes out"
        raise ConfigError(f"no product can be made of this sample: {told}")
    lines = [
        "",
        "# What must come out of a frame, compared by `penstock check`. Add the examples of the maker.",
        "vectors:",
        "  - name: the sample",
    ]
    shown = sample.payload.decode("utf-8", "replace")
    if kind == "binary" or not shown.replace("\t", " ").isprintable():
        lines.append(f'    hex: "{sample.payload.hex(" ").upper()}"')
    else:
        lines.append(f"    text: {_quoted(shown)}")
    if sample.header:
        lines.append(f"    header: {_quoted(sample.header)}")
    if sample.port >= 0:
        lines.append(f"    port: {sample.port}")
    values = {name: value for name, value in answer.readings[0][1].items() if _writable(value)}
    lines.append("    values:")
    lines += [f"      {yaml_text(name)}: {_scalar(value)}" for name, value in values.items()]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return yaml_text(text) if "\t" in text else "'" + text.replace("'", "''") + "'"


def _scalar(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return yaml_text(value) if isinstance(value, str) else json.dumps(value)


def _writable(value: Any) -> bool:
    """Whether a value can stand in a YAML file: half a surrogate pair cannot."""
    return not isinstance(value, str) or not any("\ud800" <= one <= "\udfff" for one in value)


def yaml_text(text: str) -> str:
    """A text as YAML takes it: in quotes where it would be something else without."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", text) and isinstance(scalar(text), str):
        return text
    return '"' + "".join(one if _plain(one) else _escaped(one) for one in text) + '"'


def _plain(letter: str) -> bool:
    return letter.isprintable() and letter not in '"\\' and letter <= "\uffff"


def _escaped(letter: str) -> str:
    return "\\" + letter if letter in '"\\' else f"\\U{ord(letter):08X}"


_HEAD: Final = """\
# yaml-language-server: $schema=../.schema/product.json
# Made from one sample frame by `penstock new`. Names, units and ranges are yours to say.
productId: {product}
version: 1
"""
_METRICS: Final = """\
metrics:                         # ranges are guesses; add unit (UCUM, e.g. Cel, bar, kW) and required"""
