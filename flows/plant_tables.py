"""Master data: devices.csv, sites.csv, customers.csv, every problem told at its cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from operators.document import Problem, Problems, decode_text, nearest
from operators.master import time_ns
from rules.check import number_of

STATUSES: Final = ("in_service", "maintenance", "retired")
DEVICE_COLUMNS: Final = ("device_id", "productId", "hub_id", "site_id", "name", "status", "valid_from")
MAX_BYTES: Final = 64 << 20
LONGEST_NAME: Final = 256
MISSING_TOLD: Final = 20  # names that another table lacks


class Table(NamedTuple):
    """Rows by key in file order, every cell a text without blanks around it; `lines`: key -> line. dated:
    key -> the further rows of it, each from its `valid_from` on, with their lines."""

    file: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    lines: dict[str, int]
    text: list[str]
    dated: Mapping[str, Sequence[tuple[dict[str, str], int]]] = MappingProxyType({})

    def later(self) -> dict[str, list[dict[str, str]]]:
        """`dated` without lines."""
        return {key: [row for row, _ in rows] for key, rows in self.dated.items()}

    def every(self) -> Iterator[tuple[str, dict[str, str], int]]:
        """Key, row and line of all rows, those of one key together."""
        for key, row in self.rows.items():
            yield key, row, self.lines[key]
            yield from ((key, *one) for one in self.dated.get(key, ()))

    def problem(self, key: str, column: str, text: str, line: int = 0) -> Problem:
        """A problem at a cell of a row; line 0: of the key's first."""
        line = line or self.lines[key]
        return Problem(self.file, line, _cell(self.text, line, self.columns.index(column)), column, text)


def read_table(
    file: str, data: bytes, key: str, required: Collection[str], problems: Problems
) -> Table | None:
    """A CSV with a header line; None where it cannot be read. A row with a problem is left out."""
    if len(data) > MAX_BYTES:
        problems.found.append(Problem(file, 1, 1, "", f"the file is larger than {MAX_BYTES >> 20} MiB"))
        return None
    text = decode_text(data, file, problems)
    if text is None:
        return None
    lines = text.splitlines() or [""]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: tuple[str, ...] | None = None
    rows: dict[str, dict[str, str]] = {}
    places: dict[str, int] = {}
    dated: dict[str, list[tuple[dict[str, str], int]]] = {}
    begin = 1
    try:
        for cells in reader:
            line, begin = begin, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = tuple(cell.strip() for cell in cells)
                if not _header(file, line, lines, columns, required, problems):
                    return None
                continue
            row = {name: cell.strip() for name, cell in zip(columns, cells, strict=False)}
            told = _row(file, line, lines, columns, cells, row, key, required, places)
            if told is None and row[key] in places:
                before = dated[row[key]][-1] if row[key] in dated else (rows[row[key]], places[row[key]])
                told = _behind(file, line, lines, columns, row, key, *before)
                if told is None:
                    dated.setdefault(row[key], []).append((row, line))
                    continue
            if told is not None:
                problems.found.append(told)
            else:
                rows[row[key]] = row
                places[row[key]] = line
    except csv.Error as error:
        problems.found.append(Problem(file, begin, 1, "", f"not CSV: {error}"))
        return None
    if columns is None:
        wanted = ",".join(required)
        problems.found.append(
            Problem(file, 1, 1, "", f"the file is empty; its first line names the columns: {wanted}")
        )
        return None
    return Table(file, columns, rows, places, lines, dated)


def _behind(
    file: str,
    line: int,
    lines: list[str],
    columns: tuple[str, ...],
    row: Mapping[str, str],
    key: str,
    before: Mapping[str, str],
    place: int,
) -> Problem | None:
    """Why a further row of a key is none: it counts from a day on, later than the row before it."""
    told = f"'{row[key]}' stands already in line {place}"
    if not row.get("valid_from"):
        at = _cell(lines, line, columns.index(key))
        mend = ", or say in valid_from since when this one counts" if "valid_from" in columns else ""
        return Problem(file, line, at, key, f"{told}; keep one{mend}")
    if before.get("valid_from") and _day(before) >= _day(row):
        at = _cell(lines, line, columns.index("valid_from"))
        what = f"{told}, from {before['valid_from']} on; rows of one {key} stand in the order of their days"
        return Problem(file, line, at, "valid_from", what)
    return None


def _day(row: Mapping[str, str]) -> int:
    return time_ns(row["valid_from"]) or 0


def _header(
    file: str,
    line: int,
    lines: list[str],
    columns: tuple[str, ...],
    required: Collection[str],
    problems: Problems,
) -> bool:
    good = True
    for index, name in enumerate(columns):
        if not name:
            good = False
            problems.found.append(
                Problem(file, line, _cell(lines, line, index), "", "a column without a name")
            )
        elif name in columns[:index]:
            good = False
            place = _cell(lines, line, index)
            problems.found.append(Problem(file, line, place, name, f"column '{name}' stands twice; keep one"))
    for name in required:
        if name not in columns:
            good = False
            others = [other for other in columns if other not in DEVICE_COLUMNS]
            mend = nearest(name, others).replace("did you mean", "rename").replace("?", "")
            problems.found.append(Problem(file, line, 1, "", f"column '{name}' is missing{mend}"))
    return good


def _row(
    file: str,
    line: int,
    lines: list[str],
    columns: tuple[str, ...],
    cells: list[str],
    row: Mapping[str, str],
    key: str,
    required: Collection[str],
    places: Mapping[str, int],
) -> Problem | None:
    if len(cells) != len(columns):
        return Problem(file, line, 1, "", f"{len(cells)} cells where the header has {len(columns)}")
    for name in required:
        if not row[name]:
            return Problem(file, line, _cell(lines, line, columns.index(name)), name, f"'{name}' is empty")
    value = row[key]
    at = _cell(lines, line, columns.index(key))
    if len(value) > LONGEST_NAME or not value.isprintable():
        return Problem(file, line, at, key, f"no name: at most {LONGEST_NAME} printable characters")
    if row.get("valid_from") and time_ns(row["valid_from"]) is None:
        at = _cell(lines, line, columns.index("valid_from"))
        told = f"'{row['valid_from'][:60]}' is no time; write 2026-03-01 or 2026-03-01T06:00:00+09:00"
        return Problem(file, line, at, "valid_from", told)
    return None


def check_joins(tables: Mapping[str, Table], problems: Problems) -> None:
    """Sites and customers that rows name and their own tables do not have are warned of: such a device has
    none of their attributes. Each name once; nothing of tables that the plant has no file for."""
    for file, table in tables.items():
        for column, other in (("site_id", "sites.csv"), ("customer_id", "customers.csv")):
            if other == file or other not in tables or column not in table.columns:
                continue
            met = {"", *tables[other].rows}
            for key, row, line in table.every():
                name = row.get(column, "")
                if name in met:
                    continue
                met.add(name)
                told = f"'{name}' has no row in {other}{nearest(name, tables[other].rows)}"
                problems.found.append(table.problem(key, column, told, line)._replace(warning=True))
                if len(met) > len(tables[other].rows) + MISSING_TOLD:
                    break


def check_dividing(table: Table, by: str, problems: Problems) -> None:
    """Rows of devices.csv of later days, where `by` of it divides the plant into shards."""
    for device, rows in table.dated.items():
        for row, line in rows:
            if row.get(by, "") != table.rows[device].get(by, ""):
                told = (
                    f"'{device}' cannot move to another shard, and shards.by is {by}; keep one {by} a "
                    "device, or set shards.by to device_id"
                )
                problems.found.append(table.problem(device, by, told, line))


def _cell(lines: list[str], line: int, index: int) -> int:
    """The column, from 1, at which a cell of a line begins."""
    text = lines[line - 1] if line <= len(lines) else ""
    quoted, at = False, 0
    for position, character in enumerate(text):
        if at == index:
            return position + 1
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            at += 1
    return len(text) + 1 if at == index else 1


def check_devices(
    table: Table,
    products: Collection[str],
    complete: bool,
    numeric_params: Mapping[str, Collection[str]],
    problems: Problems,
) -> None:
    """Cross checks of devices.csv. products: every productId of the folder, if it is `complete` (a
    file that could not be read may have held more). numeric_params: productId -> its parameters
    whose default is a number. Rows keep what they say."""
    for device, row, line in table.every():
        product = row["productId"]
        if product not in products and complete:
            told = f"no product '{product}'{nearest(product, products)}"
            problems.found.append(table.problem(device, "productId", told, line))
        status = row.get("status", "")
        if status and status not in STATUSES:
            mend = nearest(status, STATUSES) or f"; one of {', '.join(STATUSES)}"
            problems.found.append(table.problem(device, "status", f"unknown status '{status}'{mend}", line))
        for name in numeric_params.get(product, ()):
            cell = row.get(name, "")
            if cell and number_of(cell) is None:
                told = f"'{cell}' is no number, but the default of parameter '{name}' of {product} is"
                problems.found.append(table.problem(device, name, told, line))
