"""SenML packs resolved as RFC 8428, section 4.6 has it, record by record, with Python's own parser."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple


class Record(NamedTuple):
    """time_ns: None where neither base time nor time stands."""

    base: str
    name: str
    unit: str
    time_ns: int | None
    value: Any


def nanoseconds(seconds: Any) -> int:
    """Whole nanoseconds below a number of seconds."""
    scaled = Decimal(repr(seconds)) * 10**9
    whole = int(scaled)
    return whole - 1 if scaled < whole else whole


def resolve(pack: list[dict[str, Any]], now_ns: int) -> list[Record]:
    """The records that have a value."""
    base: dict[str, Any] = {}
    found = []
    for record in pack:
        base.update({key: value for key, value in record.items() if key in ("bn", "bt", "bu", "bv")})
        values = [record[key] for key in ("v", "vb", "vs") if key in record]
        if not values:
            continue
        value = values[0]
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = float(value) + float(base.get("bv", 0))
        time: int | None = None
        if "bt" in base or "t" in record:
            time = sum(nanoseconds(part) for part in (base.get("bt", 0), record.get("t", 0)))
            if time < 2**28 * 10**9:
                time += now_ns
        unit = record.get("u", base.get("bu", ""))
        found.append(Record(base.get("bn", ""), record.get("n", ""), unit, time, value))
    return found
