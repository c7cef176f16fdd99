"""What a `decode:` section of format csv says."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from operators.contract.spec import Metric
from operators.decode.derive_spec import Derived, parse_derive
from operators.document import Node, Problems, nearest

Place: TypeAlias = str | int
"""A column: by its name in the header line, or by its place, counted from 1."""

_KEYS: Final = (
    *("format", "separator", "decimal", "thousands", "timestamp", "hub_timestamp", "columns", "missing"),
    *("device", "metric", "value", "quality", "derive"),
)
_ELSEWHERE: Final = {
    "rows": "each row is one; of a tall file 'metric' and 'value' say the columns",
    "encoding": "stands in the source of kind files",
    "udf": "stands alone, without format",
}
_TIME_KEYS: Final = ("column", "format", "unit", "zone", "ambiguous")
EXCEL: Final = "excel"
TIME_UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1, "auto": 0, EXCEL: 0}
AMBIGUOUS: Final = ("earlier", "later", "reject")
MOST_PARTS: Final = 8


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """Where a time stands and how it is written.

    column: one, or several whose cells are one text with blanks between (a date and a time). format:
    None = ISO 8601, or a number in `unit` (excel: days since 1899-12-30); else as of `strptime`. zone:
    of a time that names none. ambiguous: which of the two moments is meant by a time of the hour that
    daylight saving repeats.
    """

    column: Place | tuple[Place, ...]
    format: str | None = None
    unit: str = "ms"
    zone: str = "UTC"
    ambiguous: str = "earlier"

    @property
    def columns(self) -> tuple[Place, ...]:
        """Its columns, in their order."""
        return self.column if isinstance(self.column, tuple) else (self.column,)

    @property
    def shown(self) -> str:
        """How a sentence names it."""
        names = ", ".join(f"'{place}'" for place in self.columns)
        return f"column {names}" if len(self.columns) == 1 else f"columns {names}"


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Columns that say of a row whose reading it is (device) and, in a tall file, which metric it
    holds, its value and its quality."""

    device: Place | None = None
    metric: Place | None = None
    value: Place | None = None
    quality: Place | None = None


@dataclass(frozen=True, slots=True)
class CsvSpec:
    """A CSV layout that has passed its checks. columns: (metric or internal `_x`, column); None:
    every column of the header that bears the name of a metric."""

    timestamp: TimeColumn | None = None
    hub_timestamp: TimeColumn | None = None
    columns: tuple[tuple[str, Place], ...] | None = None
    separator: str = ","
    decimal: str = "."
    thousands: str | None = None
    rows: CsvRows | None = None
    missing: tuple[str, ...] = ()
    internals: tuple[str, ...] = ()
    derive: tuple[Derived, ...] = ()


def parse_csv_spec(
    node: Node, metrics: Mapping[str, Metric], params: Mapping[str, float | str], problems: Problems
) -> CsvSpec:
    """The layout of a section whose `format` is csv; what is wrong is in `problems`."""
    for key in node.keys:
        if key in _ELSEWHERE:
            problems.add(node, _ELSEWHERE[key], key=key)
        elif key not in _KEYS:
            problems.add(node, f"unknown key{nearest(key, _KEYS)}", key=key)
    columns = _columns(node.get("columns"), metrics, problems)
    internals = tuple(name for name, _ in columns or () if name.startswith("_"))
    decimal = _letter(node.get("decimal"), ".", problems)
    given = node.get("thousands")
    thousands = None if given is None or given.value is None else _letter(given, ",", problems)
    if given is not None and thousands == decimal:
        problems.add(given, f"is the decimal mark as well{' (the default)' if decimal == '.' else ''}")
    return CsvSpec(
        timestamp=_time(node.get("timestamp"), problems),
        hub_timestamp=_time(node.get("hub_timestamp"), problems),
        columns=columns,
        separator=_letter(node.get("separator"), ",", problems),
        decimal=decimal,
        thousands=thousands,
        rows=_rows(node, metrics, problems),
        missing=_missing(node.get("missing"), problems),
        internals=internals,
        derive=parse_derive(node.get("derive"), metrics, params, internals, problems),
    )


def _letter(node: Node | None, default: str, problems: Problems) -> str:
    if node is None:
        return default
    if not isinstance(node.value, str) or len(node.value) != 1 or node.value in '"\r\n':
        problems.add(node, 'one character is expected, in quotes, e.g. ";"')
        return default
    return node.value


def _rows(node: Node, metrics: Mapping[str, Metric], problems: Problems) -> CsvRows | None:
    found: dict[str, Place | None] = {}
    for key in ("device", "metric", "value", "quality"):
        child = node.get(key)
        found[key] = None if child is None or child.value is None else _place(child, problems)
    if ("metric" in node.keys) != ("value" in node.keys):
        missing = "value" if "metric" in node.keys else "metric"
        problems.add(node, f"'metric' and 'value' stand together; '{missing}' is missing")
    tall = "metric" in node.keys
    if not tall and "quality" in node.keys:
        problems.add(node, "goes with 'metric' and 'value'", key="quality")
    if tall and node.get("columns") is not None:
        problems.add(node, "either 'columns' or 'metric' and 'value'", key="columns")
    return CsvRows(**found) if any(place is not None for place in found.values()) else None


def _missing(node: Node | None, problems: Problems) -> tuple[str, ...]:
    if node is None:
        return ()
    if not node.is_list or any(child.is_list or child.is_map for child in node):
        problems.add(node, 'a list of texts is expected, e.g. ["NA", "-"]')
        return ()
    return tuple(child.raw for child in node)


def _columns(
    node: Node | None, metrics: Mapping[str, Metric], problems: Problems
) -> tuple[tuple[str, Place], ...] | None:
    if node is None:
        return None
    if not node.is_map:
        problems.add(node, "a mapping from metric to column is expected, e.g. columns: {tempC: temperature}")
        return None
    found: list[tuple[str, Place]] = []
    for name, child in node.items():
        if not name.startswith("_") and name not in metrics:
            problems.add(node, f"no metric '{name}'{nearest(name, metrics)}", key=name)
        place = _place(child, problems)
        if place is not None:
            found.append((name, place))
    return tuple(found)


def _place(node: Node, problems: Problems) -> Place | None:
    value = node.value
    if isinstance(value, int) and not isinstance(value, bool):
        if value >= 1:
            return value
        problems.add(node, "columns are counted from 1")
    elif isinstance(value, str) and value:
        return value
    else:
        problems.add(node, "a column is expected: its name in the header line, or its place from 1")
    return None


def _time(node: Node | None, problems: Problems) -> TimeColumn | None:
    if node is None or node.value is None:
        return None
    if not node.is_map:
        place = _places(node, problems)
        return None if place is None else TimeColumn(place)
    for key in node.keys:
        if key not in _TIME_KEYS:
            problems.add(node, f"unknown key{nearest(key, _TIME_KEYS)}", key=key)
    form, unit, zone = node.get("format"), node.get("unit"), node.get("zone")
    ambiguous = node.get("ambiguous")
    if ambiguous is not None and ambiguous.value not in AMBIGUOUS:
        problems.add(ambiguous, f"one of {', '.join(AMBIGUOUS)} is expected")
    if form is not None and (not isinstance(form.value, str) or not _formats(form.value)):
        problems.add(form, 'a time format is expected, e.g. "%Y-%m-%d %H:%M:%S", or iso')
    if unit is not None and unit.value not in TIME_UNITS:
        problems.add(unit, f"unknown unit '{unit.raw}'; one of {', '.join(TIME_UNITS)}")
    if zone is not None and not _is_zone(zone.raw):
        problems.add(zone, f"unknown time zone '{zone.raw}'; e.g. UTC or Asia/Seoul")
    if (column := node.get("column")) is None:
        problems.add(node, "'column' is missing")
        return None
    place = _places(column, problems)
    if place is None:
        return None
    return TimeColumn(
        place,
        None if form is None or form.value == "iso" else str(form.value),
        "ms" if unit is None else str(unit.value),
        "UTC" if zone is None else zone.raw,
        "earlier" if ambiguous is None else str(ambiguous.value),
    )


def _places(node: Node, problems: Problems) -> Place | tuple[Place, ...] | None:
    """One column, or several whose cells make up one text."""
    if not node.is_list:
        return _place(node, problems)
    found = tuple(place for child in node if (place := _place(child, problems)) is not None)
    if not 1 <= len(list(node)) <= MOST_PARTS:
        problems.add(node, f"1 to {MOST_PARTS} columns are expected")
        return None
    return found or None


def _formats(text: str) -> bool:
    """Whether a time written in this format can be read back with it."""
    if text == "iso":
        return True
    moment = datetime.datetime(2001, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    try:
        datetime.datetime.strptime(moment.strftime(text), text)
    except ValueError:
        return False
    return "%" in text


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True
