"""Master data as they are: the applied plant's tables with what changes have made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flows.plant_file import Plant
from operators.master import KEYS, effective

Changed = Iterable[tuple[str, str, Mapping[str, str] | None]]  # as `OutputReader.master` gives it


def with_changes(plant: Plant, changed: Changed) -> Plant:
    """The plant with its tables as they are now."""
    rows: dict[str, dict[str, Mapping[str, str] | None]] = {table: {} for table in KEYS}
    for table, key, row in changed:
        rows[table][key] = row
    if not any(rows.values()):
        return plant
    files = plant.master.tables()
    tables: dict[str, Any] = {table: effective(files[table], rows[table]) for table in KEYS}
    return replace(plant, master=replace(plant.master, **tables))
