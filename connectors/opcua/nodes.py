"""Which nodes are read, and as what: the CSV file of a source."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from connectors.errors import ConfigError

COLUMNS: Final = ("node_id", "device_id", "metric", "sampling_ms", "deadband", "index")
REQUIRED: Final = ("node_id", "device_id", "metric")
MOST_NODES: Final = 1_000_000
NODE: Final = re.compile(
    r"(?:(?:ns=(?P<ns>[0-9]{1,5})|nsu=(?P<uri>[^;]+));)?"
    r"(?P<id>i=[0-9]{1,10}|s=.+|g=[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|b=[A-Za-z0-9+/]+=*)\Z",
    re.DOTALL,
)


class Item(NamedTuple):
    """One node of a device. node: `i=85`, `ns=2;s=Motor`, or with the namespace's URI
    `nsu=http://maker/;s=Motor`. sampling_ms: -1: as the source says. deadband: 0: none; percent: of
    the node's EURange. place: in an array, as OPC UA's index range writes it."""

    node: str
    device: str
    metric: str
    sampling_ms: float = -1.0
    deadband: float = 0.0
    percent: bool = False
    place: str | None = None


def node_problem(text: str) -> str | None:
    """What is wrong with the name of a node, if anything."""
    if NODE.match(text) is None:
        return f"'{text[:60]}' is no node; write for example nsu=http://maker/;s=Motor.Temp or ns=2;i=1001"
    return None


def read_nodes(text: str, name: str) -> list[Item]:
    """The rows of a nodes file. Raises `ConfigError` that tells the first lines that are wrong."""
    items, wrong = parse_nodes(text)
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ConfigError("; ".join(f"{name}:{line}  {told}" for line, told in wrong[:3]) + more)
    return items


def write_nodes(items: Iterable[Item]) -> str:
    """The text of a nodes file; `read_nodes` gives the same items."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for item in items:
        sampling = "" if item.sampling_ms < 0 else f"{item.sampling_ms:g}"
        band = f"{item.deadband:g}{'%' * item.percent}" if item.deadband else ""
        rows.writerow([item.node, item.device, item.metric, sampling, band, item.place or ""])
    return text.getvalue()


def parse_nodes(text: str) -> tuple[list[Item], list[tuple[int, str]]]:
    """The rows of a nodes file, and (line, what is wrong there)."""
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    header = [cell.strip() for cell in next(rows, [])]
    wrong = [(1, f"the column '{column}' is missing") for column in REQUIRED if column not in header]
    wrong += [
        (1, f"unknown column '{column}'; known: {', '.join(COLUMNS)}")
        for column in header
        if column not in COLUMNS
    ]
    items: list[Item] = []
    met: dict[tuple[str, str], int] = {}
    for row in rows if not wrong else ():
        if not any(cell.strip() for cell in row):
            continue
        line = rows.line_num
        item = _item(dict(zip(header, (cell.strip() for cell in row), strict=False)), line, wrong)
        if item is not None:
            before = met.setdefault((item.device, item.metric), line)
            if before != line:
                wrong.append((line, f"'{item.metric}' of '{item.device}' is already in line {before}"))
            items.append(item)
    if len(items) > MOST_NODES:
        wrong.append((1, f"more than {MOST_NODES} nodes"))
    if not items and not wrong:
        wrong.append((1, "no node is named"))
    return items, wrong


def _item(cells: dict[str, str], line: int, wrong: list[tuple[int, str]]) -> Item | None:
    before = len(wrong)
    wrong += [(line, f"{column} is empty") for column in REQUIRED if not cells.get(column)]
    if "/" in cells.get("device_id", ""):
        wrong.append((line, f"device_id: '{cells['device_id']}' holds a '/'"))
    if cells.get("node_id") and (told := node_problem(cells["node_id"])) is not None:
        wrong.append((line, f"node_id: {told}"))
    sampling = _number(cells.get("sampling_ms") or "-1", line, "sampling_ms", wrong)
    band = cells.get("deadband") or "0"
    percent = band.endswith("%")
    deadband = _number(band.removesuffix("%"), line, "deadband", wrong)
    index = cells.get("index") or None
    if index is not None and re.fullmatch(r"[0-9]{1,9}(?:,[0-9]{1,9})*", index) is None:
        wrong.append((line, f"index: '{index}' is no place in an array; write 2, or 2,0 in a matrix"))
    if len(wrong) > before:
        return None
    return Item(
        cells["node_id"], cells["device_id"], cells["metric"], sampling, max(0.0, deadband), percent, index
    )


def _number(text: str, line: int, what: str, wrong: list[tuple[int, str]]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (value == -1 or 0 <= value < 1e12):
        wrong.append((line, f"{what}: '{text}' is no number from 0"))
        return 0.0
    return value
