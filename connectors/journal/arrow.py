"""Telemetry as Arrow columns: what Parquet files and the historian are given.

`_ts`, `_ingest_ts` (nanoseconds, UTC), `_device`, `_seq`, `_historical`, then for each metric m
its value and `m__quality`. A value that is absent, null or unknown is null; its quality says
which. A bad value that a contract keeps (`on_breach: bad`) stays, with quality bad.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.journal.columns import Telemetry
from operators.batch import QUALITY_NAMES, Bytes, Float64

TYPES = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "string": pa.string()}
TIME = pa.timestamp("ns", "UTC")
TEXTS = pa.dictionary(pa.int32(), pa.string())
QUALITY = pa.dictionary(pa.int8(), pa.string())


def values_column(kind: str, value: Float64, texts: dict[int, str]) -> pa.Array:
    """One metric's values as Arrow; NaN is null. A text comes as a dictionary of its texts."""
    unknown = np.isnan(value)
    if kind == "number":
        return pa.array(value, pa.float64(), mask=unknown)
    whole = np.where(unknown, 0.0, value)
    if kind == "integer":
        return pa.array(whole.astype(np.int64), pa.int64(), mask=unknown)
    if kind == "boolean":
        return pa.array(whole != 0.0, pa.bool_(), mask=unknown)
    codes, index = np.unique(whole.astype(np.int64), return_inverse=True)
    words = [texts.get(code, "") for code in codes.tolist()]
    indices = pa.array(index.reshape(-1).astype(np.int32), pa.int32(), mask=unknown)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))


def quality_column(quality: Bytes) -> pa.Array:
    """One metric's qualities as a dictionary of their names."""
    return pa.DictionaryArray.from_arrays(
        pa.array(quality.view(np.int8), pa.int8()), pa.array(QUALITY_NAMES, pa.string())
    )


def time_column(ns: Any) -> pa.Array:
    """int64[N] nanoseconds since 1970 as Arrow time."""
    return pa.array(ns, pa.int64()).cast(TIME)


def telemetry_columns(
    telemetry: Telemetry, name_of: Callable[[str], str] = lambda metric: metric
) -> dict[str, pa.Array]:
    """The columns of the wide table, in its order; `name_of` gives a metric's column name."""
    columns: dict[str, pa.Array] = {
        "_ts": time_column(telemetry.ts_ns),
        "_ingest_ts": time_column(telemetry.ingest_ns),
        "_device": pa.DictionaryArray.from_arrays(
            pa.array(telemetry.device), pa.array(telemetry.devices, pa.string())
        ),
        "_seq": pa.array(telemetry.seq),
        "_historical": pa.array(telemetry.historical != 0),
    }
    for row, (metric, kind) in enumerate(telemetry.metrics):
        name = name_of(metric)
        columns[name] = values_column(kind, telemetry.value[row], telemetry.texts)
        columns[f"{name}__quality"] = quality_column(telemetry.quality[row])
    return columns
