"""One decoded frame for people: its bytes, coloured by the values that they became, and the values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.frame_answers import Given
from flows.scaffold_binary import Check as KnownCheck
from flows.scaffold_binary import value_of
from operators.decode.binary_tree import LE, BinarySpec, Check
from operators.decode.explain import Answer, iso_time

COLOURS: Final = ("cyan", "yellow", "green", "magenta", "bright_blue", "bright_red")
CHECKED: Final = "black on green"
WRONG: Final = "bold white on red"
_ROW: Final = 16
_EXACT: Final = 2.0**53
_MOST_SHOWN: Final = 4096  # bytes of a dump


def show(console: Console, payload: bytes, port: int, answer: Answer, given: Given) -> None:
    """Print one frame. Colours go away by themselves where the output is no terminal."""
    told = f"{len(payload)} byte{'s' * (len(payload) != 1)}" + (f", port {port}" if port >= 0 else "")
    console.print(Text(told, style="bold"))
    text = _as_text(payload) if given.layout is None else None
    if text is not None:
        console.print(Text("  " + text), soft_wrap=True)
    else:
        _dump(console, payload, _styles(payload, answer, given.layout))
    if answer.reject is not None:
        reason, _, message = answer.reject
        console.print(Text(f"  rejected: {reason}: {message}", style="red"), soft_wrap=True)
        for line in _failed(payload, answer, given.layout):
            console.print(Text(f"  {line}", style="red"))
        return
    if answer.ignored:
        console.print("  no reading: the layout ignores this frame")
        return
    for number, (ts, metrics) in enumerate(answer.readings):
        which = f"reading {number}" if len(answer.readings) > 1 else "reading"
        console.print(Text(f"  {which} at {iso_time(ts) or 'its time of arrival'}", style="bold"))
        _table(console, payload, answer, number, metrics, given)
    for check in given.layout.top.checks if given.layout is not None else ():
        where = _place(check, payload)
        if where is not None:
            fits = not answer.uncertain
            last = "" if check.width == 8 else f"..{where + check.width // 8 - 1}"
            name = f"{check.kind}{check.width}"
            told = f"  {name} at {where}{last} " + ("fits" if fits else "does not fit: quality is uncertain")
            console.print(Text(told, style="green" if fits else "red"))
    if answer.uncertain and (given.layout is None or not given.layout.top.checks):
        console.print(Text("  a check does not fit: quality is uncertain", style="red"))


def _as_text(payload: bytes) -> str | None:
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        return None
    plain = text.replace("\t", " ").replace("\r\n", " ").replace("\n", " ")
    return plain if plain.isprintable() else None


def _styles(payload: bytes, answer: Answer, layout: BinarySpec | None) -> dict[int, str]:
    """The style of each byte that has one."""
    styles: dict[int, str] = {}
    for check in layout.top.checks if layout is not None else ():
        if (where := _place(check, payload)) is not None:
            styles.update(dict.fromkeys(range(where, where + check.width // 8), CHECKED))
    for n, one in enumerate(answer.pointed):
        for byte in range(one.first_bit // 8, (one.end_bit + 7) // 8):
            styles[byte] = COLOURS[n % len(COLOURS)]
    if answer.reject is not None and answer.reject[1] is not None:
        styles[answer.reject[1]] = WRONG
    return styles


def _dump(console: Console, payload: bytes, styles: Mapping[int, str]) -> None:
    for start in range(0, min(len(payload), _MOST_SHOWN), _ROW):
        row = payload[start : start + _ROW]
        line = Text()
        line.append(f"  {start:04x}  ", style="dim")
        for at, byte in enumerate(row, start):
            line.append(f"{byte:02x}", style=styles.get(at, "default"))
            line.append("  " if at % 8 == 7 else " ")
        line.append(
            "   " * (_ROW - len(row)) + (" " if len(row) < 8 else "") + ("" if len(row) > 15 else " ")
        )
        for at, byte in enumerate(row, start):
            line.append(chr(byte) if 32 <= byte < 127 else ".", style=styles.get(at, "dim"))
        console.print(line)
    if len(payload) > _MOST_SHOWN:
        console.print(f"  and {len(payload) - _MOST_SHOWN} more")


def _table(
    console: Console,
    payload: bytes,
    answer: Answer,
    number: int,
    metrics: Mapping[str, Any],
    given: Given,
) -> None:
    """A row for each value of one reading: first those that came out of bytes, then the derived ones."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for heading in ("    bytes", "", "value of", "", "unit", ""):
        table.add_column(heading, no_wrap=True)
    shown = set()
    for n, one in enumerate(answer.pointed):
        if one.reading not in (number, -1):
            continue
        shown.add(one.name)
        low, high = one.first_bit // 8, (one.end_bit + 7) // 8
        style = COLOURS[n % len(COLOURS)]
        data = payload[low:high].hex(" ") if high - low <= 8 else f"{payload[low : low + 7].hex(' ')} .."
        table.add_row(
            "    " + _bytes(one.first_bit, one.end_bit),
            Text(data if one.end_bit > one.first_bit else "", style=style),
            Text(one.name, style=style),
            *_value(one.name, one.value, given),
        )
    for name, value in metrics.items():
        if name not in shown:
            table.add_row("    -", "", Text(name), *_value(name, value, given))
    console.print(table, soft_wrap=True)


def _value(name: str, value: Any, given: Given) -> tuple[str, str, Text]:
    """The value, its unit, and where it lies outside its range."""
    low, high = given.ranges.get(name, (None, None))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    outside = number and ((low is not None and value < low) or (high is not None and value > high))
    text = f"outside {_plain(low)}..{_plain(high)}" if outside else ""
    return _plain(value), given.units.get(name, ""), Text(text, style="red")


def _plain(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def _bytes(first: int, end: int) -> str:
    if first == end:
        return "-"
    low, high = first // 8, (end + 7) // 8 - 1
    whole = str(low) if low == high else f"{low}..{high}"
    return f"{whole} (bit {first % 8}, {end - first} long)" if first % 8 or end % 8 else whole


def _place(check: Check, payload: bytes) -> int | None:
    """Where a check stands in a frame; None where the frame is too short for it."""
    where = check.at if check.at >= 0 else len(payload) + check.at
    return where if 0 <= where <= len(payload) - check.width // 8 else None


def _failed(payload: bytes, answer: Answer, layout: BinarySpec | None) -> Iterator[str]:
    """What a check that does not fit found, and what it should have found."""
    if answer.reject is None or answer.reject[0] != "check" or layout is None:
        return
    for check in layout.top.checks:
        where = _place(check, payload)
        if where is None or where != answer.reject[1] or f"{check.kind}{check.width}" == "sum16":
            continue
        low, high = check.over
        start = 0 if low is None else low if low >= 0 else len(payload) + low
        stop = where if high is None else (high if high >= 0 else len(payload) + high) + 1
        known = KnownCheck("", f"{check.kind}{check.width}", check.poly, check.init, check.xor, check.reflect)
        size = check.width // 8
        wanted = value_of(known, payload[start:stop])
        if check.kind == "sum":
            wanted = (wanted + check.init) & 0xFF ^ check.xor
        elif check.kind == "xor":
            wanted ^= check.xor
        expected = wanted.to_bytes(size, "little" if check.order == LE else "big").hex(" ")
        found = payload[where : where + size].hex(" ")
        yield f"{known.kind} over bytes {start}..{stop - 1} is {expected}, the frame says {found}"
