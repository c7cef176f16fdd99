"""Master data: devices.csv, sites.csv, customers.csv, every problem told at its cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from operators.document import Problem, Problems, decode_text, nearest
from rules.check import number_of

STATUSES: Final = ("in_service", "maintenance", "retired")
DEVICE_COLUMNS: Final = ("device_id", "productId", "hub_id", "site_id", "name", "status", "valid_from")
MAX_BYTES: Final = 64 << 20
LONGEST_NAME: Final = 256


class Table(NamedTuple):
    """Rows by key in file order, every cell a text without blanks around it; `lines`: key -> line."""

    file: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    lines: dict[str, int]
    text: list[str]

    def problem(self, key: str, column: str, text: str) -> Problem:
        """A problem at a cell."""
        line = self.lines[key]
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
    return Table(file, columns, rows, places, lines)


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
    if value in places:
        return Problem(file, line, at, key, f"'{value}' stands already in line {places[value]}; keep one")
    return None


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
    for device, row in table.rows.items():
        product = row["productId"]
        if product not in products and complete:
            told = f"no product '{product}'{nearest(product, products)}"
            problems.found.append(table.problem(device, "productId", told))
        status = row.get("status", "")
        if status and status not in STATUSES:
            mend = nearest(status, STATUSES) or f"; one of {', '.join(STATUSES)}"
            problems.found.append(table.problem(device, "status", f"unknown status '{status}'{mend}"))
        for name in numeric_params.get(product, ()):
            cell = row.get(name, "")
            if cell and number_of(cell) is None:
                told = f"'{cell}' is no number, but the default of parameter '{name}' of {product} is"
                problems.found.append(table.problem(device, name, told))
    dated = [device for device, row in table.rows.items() if row.get("valid_from")]
    if dated:
        told = (
            "a row of the file counts at all times; what is to count from a day on is a change of master data"
        )
        problems.found.append(table.problem(dated[0], "valid_from", told)._replace(warning=True))
