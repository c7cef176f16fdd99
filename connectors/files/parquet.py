"""Rows of a Parquet file as frames of JSON: an object of column names and values."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.files.content import BrokenFileError
from connectors.files.rows import Row
from connectors.source import Frame

ROWS: Final = 4096  # read at once

_encoder: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def parquet_rows(path: Path, topic: str, start: int) -> Iterator[Row]:
    """The rows from row `start` on, one row group's columns in memory at a time. Times are ISO 8601 with
    their zone, UTC where they have none; infinities and NaN null. A frame's line is its row, from 1."""
    with path.open("rb") as file:
        try:
            source = pq.ParquetFile(file)
            at = 0
            for group in range(source.num_row_groups):
                count = source.metadata.row_group(group).num_rows
                if at + count <= start:
                    at += count
                    continue
                for batch in source.iter_batches(ROWS, row_groups=[group]):
                    for row in _cut(batch).to_pylist():
                        at += 1
                        if at > start:
                            frame = Frame(topic, _encoder.encode(_plain(row)), line=at)
                            yield Row(frame, at, at)
        except (pa.ArrowException, ValueError) as error:
            raise BrokenFileError(f"is no Parquet file, or damaged: {error}") from error


def _cut(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Times of nanoseconds cut down to microseconds, which is what Python's have."""
    types = [
        pa.timestamp("us", one.type.tz)
        if pa.types.is_timestamp(one.type) and one.type.unit == "ns"
        else one.type
        for one in batch.schema
    ]
    cut = [
        column.cast(kind, safe=False) if column.type != kind else column
        for column, kind in zip(batch.columns, types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(cut, names=batch.schema.names)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, datetime.datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, decimal.Decimal):
        return value if value.is_finite() else None
    return value
