"""Master data by the journal: the tables of the plant's files, and what changes made of them.

A change is `{"op": "upsert", "table": "devices", "data": {...}}` or `{"op": "delete", "table": "devices",
"keys": {"device_id": ...}}`. It counts from its place in the journal on. The newest word on a cell wins,
whoever says it: a change, a frame that provisions a device, or an applied plant folder, which says
what it has otherwise than the folder applied before it.

Readings are joined with rows as of event time (`operators.attributes`), so a row that becomes another is
kept as what stood until then. A change speaks of the event times from `valid_from` on, or from when it is
said; whatever else was said of these, up to now, it overrides cell by cell.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise, takewhile
from typing import Any, Final, NamedTuple

from operators.attributes import ALWAYS, Past
from operators.document import nearest
from operators.rejects import Reason
from operators.snapshot import pack

KEYS: Final[Mapping[str, str]] = {"devices": "device_id", "sites": "site_id", "customers": "customer_id"}
"""The tables, and the column that names their rows."""

STATUSES: Final = ("in_service", "maintenance", "retired")
RETIRED: Final = "retired"
LONGEST_NAME: Final = 256
LONGEST_CELL: Final = 1_000
COLUMNS_MOST: Final = 200
PAST_MOST: Final = 32
"""Former rows that are kept of one key; beyond it the oldest gives way, and the next stands for before."""
_OPS: Final = {"upsert": "data", "delete": "keys"}

Row = Mapping[str, str]
Rows = Mapping[str, Row]


class DeviceRow(NamedTuple):
    """A device whose row has changed, or one that it is joined with: the row before (None: there was none)
    and after, and the rows of the past with them."""

    device: str
    before: Row | None
    after: Row
    past_before: tuple[Past, ...] = ()
    past_after: tuple[Past, ...] = ()


class ChangeError(ValueError):
    """Why a change is refused; the text begins with the place in it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class RowChange(NamedTuple):
    """What became of one row. row: all of its cells that are not empty; None: it is gone. past: what it
    was, as of event time."""

    table: str
    key: str
    row: Row | None
    past: tuple[Past, ...] = ()


class MasterChanges(NamedTuple):
    """What changed at one place of the journal. at_ns: its clock there. whole: the rows are all that
    differ from the plant's files from now on, and no others (after a plant was applied)."""

    at_ns: int
    rows: tuple[RowChange, ...]
    whole: bool = False


class MasterSpec(NamedTuple):
    """What changes are judged by. numeric: productId -> its parameters that are numbers. devices:
    `limits.devices`."""

    products: Collection[str] = ()
    numeric: Mapping[str, Collection[str]] = {}
    devices: int = 100_000


class Wanted(NamedTuple):
    """A change whose shape is sound. cells: column -> text, "" takes one back; None: a delete.
    place: of the change in what holds it. from_ns: the event time from which it counts; 0: when it is
    said; ALWAYS: whatever its row was before is forgotten."""

    table: str
    key: str
    cells: Row | None
    place: str = ""
    from_ns: int = 0


class _Table(Mapping[str, Row]):
    """The rows of a file, and over them those that changed (None: gone), as both are at each look. Every
    stage of a shard has a registry of its own place in the journal: they share the files' rows."""

    __slots__ = ("_changed", "_file")

    def __init__(self, file: Rows, changed: Mapping[str, Row | None]) -> None:
        self._file, self._changed = file, changed

    def __getitem__(self, key: str) -> Row:
        row = self._changed[key] if key in self._changed else self._file[key]
        if row is None:
            raise KeyError(key)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(effective(self._file, self._changed) if self._changed else self._file)

    def __len__(self) -> int:
        gone = sum(row is None and key in self._file for key, row in self._changed.items())
        new = sum(row is not None and key not in self._file for key, row in self._changed.items())
        return len(self._file) - gone + new


@dataclass(slots=True, eq=False)
class Registry:
    """The tables at one place of the journal. files: as the applied plant has them; changed: rows that
    differ from them (None: gone), in the order in which they came to; waiting: changes that count from
    a time that has not come, by it. dated: further rows of the files, each from its `valid_from` on. past:
    what rows were, of those that ever were otherwise."""

    files: Mapping[str, Rows] = field(default_factory=lambda: {table: {} for table in KEYS})
    tables: dict[str, Rows] = field(init=False)
    changed: dict[str, dict[str, Row | None]] = field(init=False)
    waiting: list[Wanted] = field(default_factory=list)
    dated: Mapping[str, Mapping[str, Sequence[Row]]] = field(default_factory=dict)
    past: dict[str, dict[str, tuple[Past, ...]]] = field(init=False)
    version: int = 0  # rises with every change
    in_service: int = 0  # devices that are not retired
    _packed: tuple[Any, bytes] | None = None

    def __post_init__(self) -> None:
        self.changed = {table: {} for table in KEYS}
        self.past = {table: {} for table in KEYS}
        self.waiting += _dated(self.files, self.dated)
        self.waiting.sort(key=_since)
        self._build()

    def _build(self) -> None:
        self.tables = {table: _Table(self.files.get(table, {}), self.changed[table]) for table in KEYS}
        self._count()

    def _count(self) -> None:
        self.in_service = sum(row.get("status") != RETIRED for row in self.tables["devices"].values())
        self.version += 1

    def take(self, changes: Iterable[RowChange]) -> None:
        """Make the rows what they became."""
        for table, key, row, past in changes:
            before = self.tables[table].get(key)
            if table == "devices":
                self.in_service += _counts(row) - _counts(before)
            self._differs(table, key, row)
            self._was(table, key, past)
        self.version += 1

    def _differs(self, table: str, key: str, row: Row | None) -> None:
        """Keep a row where the files have another."""
        file = self.files.get(table, {}).get(key)
        if row == (None if file is None else _filled(file)):
            self.changed[table].pop(key, None)
        else:
            self.changed[table][key] = row

    def _was(self, table: str, key: str, past: tuple[Past, ...]) -> None:
        if past:
            self.past[table][key] = past
        else:
            self.past[table].pop(key, None)

    def rebase(
        self,
        files: Mapping[str, Rows],
        keep: bool,
        at_ns: int = 0,
        dated: Mapping[str, Mapping[str, Sequence[Row]]] | None = None,
    ) -> None:
        """Another plant is applied, at a time of the journal's clock. A cell that its files have otherwise
        than those before is what they say (`_file_says`); a row that they have no more is gone, with
        `keep` it stays."""
        dated = {} if dated is None else dated
        said: list[Wanted] = []
        anew: set[tuple[str, str]] = set()
        for table in KEYS:
            before, after = self.files.get(table, {}), files.get(table, {})
            old, new = self.dated.get(table, {}), dated.get(table, {})
            now, changed = self.tables[table], self.changed[table]
            for key in [*before, *(key for key in after if key not in before)]:
                if before.get(key) == after.get(key) and old.get(key) == new.get(key):
                    continue
                anew.add((table, key))
                if key not in after:
                    if keep and key in now:
                        changed[key] = now[key]
                    else:
                        changed.pop(key, None)
                        self._was(table, key, ())
                    continue
                rows = [after[key], *new.get(key, ())]
                if key in now:
                    changed[key] = now[key]
                    was = [before[key], *old.get(key, ())] if key in before else [{}]
                else:
                    changed.pop(key, None)
                    was = rows[:1]
                said += _file_says(table, key, was, rows)
            for key in [key for key, row in changed.items() if row is None and key not in after]:
                del changed[key]
        self.files, self.dated = files, dated
        self._build()
        waits = [one for one in self.waiting if one.place != one.table or one[:2] not in anew]
        self.waiting = sorted([*waits, *(one for one in said if one.from_ns > at_ns)], key=_since)
        for one in sorted((one for one in said if one.from_ns <= at_ns), key=_since):
            row, past = _outcome(one, self.tables[one.table].get(one.key), self._past(one), at_ns)
            self.take([RowChange(one.table, one.key, row, past)])
        for table in KEYS:  # rows that are the files' again
            for key, row in list(self.changed[table].items()):
                self._differs(table, key, row)

    def _past(self, wanted: Wanted) -> tuple[Past, ...]:
        return self.past[wanted.table].get(wanted.key, ())

    def outcomes(self, wanted: Iterable[Wanted], spec: MasterSpec, now_ns: int) -> list[RowChange]:
        """What changes make of their rows now, one after the other, and of all that stay as they are
        nothing. Raises `ChangeError` for the first that is refused."""
        found: list[RowChange] = []
        drafted: dict[tuple[str, str], RowChange] = {}
        in_service = self.in_service
        for one in wanted:
            place = one.table, one.key
            before, past_before = self.tables[one.table].get(one.key), self._past(one)
            if place in drafted:
                before, past_before = drafted[place][2:]
            row, past = _outcome(one, before, past_before, now_ns)
            if row == (None if before is None else _filled(before)) and past == past_before:
                continue
            if one.table == "devices" and row is not None:
                in_service += _counts(row) - _counts(before)
                self._judge_device(one, row, in_service, spec)
            drafted[place] = RowChange(*place, row, past)
            found.append(drafted[place])
        return found

    def _judge_device(self, wanted: Wanted, row: Row, in_service: int, spec: MasterSpec) -> None:
        place, product = wanted.place, row.get("productId", "")
        if product and product not in spec.products:
            mend = nearest(product, spec.products)
            raise ChangeError(Reason.no_product, f"{place}productId: no product '{product}'{mend}")
        for name in spec.numeric.get(product, ()):
            cell = row.get(name, "")
            if cell and number_of(cell) is None:
                told = (
                    f"{place}{name}: '{cell[:60]}' is no number, and parameter '{name}' of {product} is one"
                )
                raise ChangeError(Reason.type, told)
        if in_service > max(spec.devices, self.in_service):
            told = f"'{wanted.key}' is one device more than limits.devices allows ({spec.devices})"
            raise ChangeError(Reason.device_limit, told)

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        return {
            "changed": {table: list(rows.items()) for table, rows in self.changed.items()},
            "waiting": [list(wanted) for wanted in self.waiting],
            "past": {
                table: [[key, [list(one) for one in past]] for key, past in rows.items()]
                for table, rows in self.past.items()
            },
        }

    def packed(self) -> bytes:
        """The same as bytes, made once for what has not changed since."""
        state = self.version, tuple(self.waiting)
        if self._packed is None or self._packed[0] != state:
            self._packed = state, pack(self.export())
        return self._packed[1]

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `export` gave, under the same files."""
        self.changed = {table: dict(state["changed"][table]) for table in KEYS}
        self.waiting = [Wanted(*one) for one in state["waiting"]]
        for table, rows in state.get("past", {}).items():
            self.past[table] = {key: tuple(Past(*one) for one in past) for key, past in rows}
        self._build()


def _outcome(
    wanted: Wanted, before: Row | None, past: tuple[Past, ...], now_ns: int
) -> tuple[Row | None, tuple[Past, ...]]:
    """The row after a change (None: there is none), and what it was. before, past: the same before it."""
    cells = wanted.cells
    if cells is None:
        if before is None or wanted.table != "devices":
            return None, ()
        cells = {"status": RETIRED}  # its readings go on being known, and filtered; its past keeps its place
    if before is None:
        return _filled(cells), ()
    since = min(wanted.from_ns or now_ns, now_ns)
    found: list[Past] = []
    begins = ALWAYS
    for until, row in past:
        if begins < since:
            found.append(Past(min(until, since), row))
        if until > since:
            found.append(Past(until, _filled({**row, **cells})))
        begins = until
    if begins < since:
        found.append(Past(since, before))
    after = _filled({**before, **cells})
    rows = [*(_filled(one.row) for one in found[1:]), after]
    found = [one for one, behind in zip(found, rows, strict=False) if not _is_same(one.row, behind)]
    return after, tuple(found[-PAST_MOST:])


def _is_same(row: Row, behind: Row) -> bool:
    """Whether a row is another only in since when it counts."""
    return {**_filled(row), "valid_from": ""} == {**behind, "valid_from": ""}


def _since(wanted: Wanted) -> int:
    return wanted.from_ns


def _valid_from(row: Row) -> int:
    return max(time_ns(row["valid_from"]) or 1, 1) if row.get("valid_from") else ALWAYS


def _said(before: Row, after: Row) -> dict[str, str]:
    """The cells that a row has otherwise than the one before."""
    return {
        name: after.get(name, "")
        for name in {**before, **after}
        if before.get(name, "") != after.get(name, "")
    }


def _dated(files: Mapping[str, Rows], dated: Mapping[str, Mapping[str, Sequence[Row]]]) -> list[Wanted]:
    """What further rows of the files will say, each from its day on."""
    return [
        one
        for table, rows in dated.items()
        for key, later in rows.items()
        for one in _file_says(table, key, [files[table][key]], [files[table][key], *later])
    ]


def _file_says(table: str, key: str, was: Sequence[Row], rows: Sequence[Row]) -> list[Wanted]:
    """What the rows of a key in a file say otherwise than those before, each from its day on: the first
    counts always, an only one from its `valid_from`. Of the cells in which they differ, from the first row
    that is otherwise on, all is what the file says; of others nothing is said."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(was, rows, strict=False)))
    days = [_valid_from(one[same]) for one in (was, rows) if same < len(one)]
    since = (
        min(days, default=ALWAYS) if same else _valid_from(rows[0]) if len(was) + len(rows) == 2 else ALWAYS
    )
    tail = [*was[max(same - 1, 0) :], *rows[max(same - 1, 0) :]]
    named = {name for one in tail for name in _said(tail[0], one)}
    at = same if same < len(rows) and (not same or _valid_from(rows[same]) <= since) else same - 1
    said = [Wanted(table, key, {name: rows[at].get(name, "") for name in sorted(named)}, table, since)]
    for before, row in pairwise(rows[at:]):
        said.append(Wanted(table, key, _said(before, row), table, _valid_from(row)))
    return said


def effective(files: Rows, changed: Mapping[str, Row | None]) -> dict[str, Row]:
    """Rows of a table: those of the file in their order, then those that only changes gave."""
    rows = {key: changed.get(key, row) for key, row in files.items()}
    rows.update({key: row for key, row in changed.items() if key not in files})
    return {key: row for key, row in rows.items() if row is not None}


def number_of(cell: str) -> float | None:
    """The finite number in a cell; None where there is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def is_retired(row: Row | None) -> bool:
    """Whether a row says that its device is retired."""
    return row is not None and row.get("status") == RETIRED


def _counts(row: Row | None) -> bool:
    return row is not None and row.get("status") != RETIRED


def _filled(row: Row) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if cell}


# -- reading changes


def read_changes(document: Any) -> list[Wanted]:
    """The changes of a JSON value: one, or a list of them. Raises `ChangeError` for the first that
    is none; whether products and numbers in it are right, `Registry.outcome` says."""
    if isinstance(document, list):
        return [_wanted(one, f"[{at}].") for at, one in enumerate(document)]
    return [_wanted(document, "")]


def _wanted(change: Any, place: str) -> Wanted:
    if not isinstance(change, dict):
        raise _malformed(place.rstrip(".") or "change", 'is no object; write {"op", "table", "data"}')
    op, table = change.get("op"), change.get("table")
    for key in change:
        if key not in ("op", "table", "data", "keys"):
            mend = nearest(key, ("op", "table", "data", "keys")) or "; op, table, data or keys"
            mend = "; it stands in data" if key == "valid_from" else mend
            raise _malformed(place + key[:60], f"is unknown{mend}")
    if not isinstance(op, str) or op not in _OPS:
        raise _malformed(f"{place}op", f"{_shown(op)} is not known{_near(op, _OPS)}")
    if not isinstance(table, str) or table not in KEYS:
        raise _malformed(f"{place}table", f"{_shown(table)} is not known{_near(table, KEYS)}")
    for key in _OPS.values():
        if (key in change) != (key == _OPS[op]):
            told = f"is missing; an {op} has it" if key == _OPS[op] else f"does not go with {op}"
            raise _malformed(place + key, told.replace("an delete", "a delete"))
    body, name = change[_OPS[op]], KEYS[table]
    at = f"{place}{_OPS[op]}"
    if not isinstance(body, dict):
        raise _malformed(at, "is no object")
    key = body.get(name)
    if not isinstance(key, str) or not key:
        raise _malformed(f"{at}.{name}", "is missing: it names the row" if key is None else "is no name")
    if len(key) > LONGEST_NAME or not key.isprintable() or key != key.strip():
        raise _malformed(f"{at}.{name}", f"is no name: at most {LONGEST_NAME} printable characters")
    if op == "delete":
        for other in body:
            if other != name:
                raise _malformed(f"{at}.{other[:60]}", f"is unknown; {name} alone names the row")
        return Wanted(table, key, None, f"{at}.")
    if len(body) > COLUMNS_MOST:
        raise _malformed(at, f"has {len(body)} columns; at most {COLUMNS_MOST}")
    cells = {column: _cell(value, f"{at}.{column[:60]}", column) for column, value in body.items()}
    status = cells.get("status", "")
    if table == "devices" and status and status not in STATUSES:
        mend = nearest(status, STATUSES) or f"; one of {', '.join(STATUSES)}"
        raise ChangeError(Reason.values, f"{at}.status: unknown status '{status[:60]}'{mend}")
    from_ns = ALWAYS if "valid_from" in cells else 0
    if cells.get("valid_from"):
        found = time_ns(body["valid_from"])
        if found is None:
            raise _malformed(f"{at}.valid_from", f"{_shown(body['valid_from'])} is no time; write 2026-03-01")
        from_ns = max(found, 1)
    return Wanted(table, key, cells, f"{at}.", from_ns)


def _cell(value: Any, place: str, column: str) -> str:
    if not column or len(column) > LONGEST_NAME or not column.isprintable() or column != column.strip():
        raise _malformed(place, f"is no name of a column: at most {LONGEST_NAME} printable characters")
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if not isinstance(value, str):
        raise _malformed(place, "is no text, number, boolean or null")
    text = value.strip()
    if len(text) > LONGEST_CELL or not text.isprintable():
        raise _malformed(place, f"is longer than {LONGEST_CELL} characters, or not printable")
    return text


def time_ns(value: Any) -> int | None:
    """A time: a number is milliseconds since 1970, a text ISO 8601, UTC where it names no zone."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) * 1_000_000 if 0 <= value < 9e15 else None
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    past = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) * 1_000


def _malformed(place: str, told: str) -> ChangeError:
    return ChangeError(Reason.malformed, f"{place}: {told}")


def _shown(value: Any) -> str:
    return (
        f"'{value[:60]}'" if isinstance(value, str) else "nothing" if value is None else "what stands there"
    )


def _near(value: Any, known: Collection[str]) -> str:
    return (nearest(value, known) if isinstance(value, str) else "") or f"; one of {', '.join(known)}"
