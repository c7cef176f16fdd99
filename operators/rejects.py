"""Reject records and their reason codes: the one list of reasons (FORMATS section 5)."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Reason(IntEnum):
    """Why a frame or a reading was refused. The name is the code in rejects.jsonl, in the
    `rejects` table and in the metric label; the number is what kernels return (0 = none)."""

    malformed = 1
    too_large = 2
    too_deep = 3
    empty = 4
    encoding = 5
    no_product = 6
    unknown_device = 7
    device_limit = 8
    short = 9
    unmatched = 10
    check = 11
    type = 12
    required = 13
    range = 14
    step = 15
    values = 16
    timestamp_future = 17
    timestamp_past = 18
    bad_number = 19
    resync = 20
    udf = 21
    engine_error = 22


class Reject(msgspec.Struct, frozen=True, array_like=True):
    """One frame (index 0) or one reading (its index in the frame) that was refused.

    message: a sentence with the place (byte offset or JSON path). payload: the raw frame.
    device_id and productId are "" when not known. ingest_ns: nanoseconds since 1970.
    """

    reason: Reason
    message: str
    source: str
    topic: str
    device_id: str
    productId: str
    position: int
    index: int
    ingest_ns: int
    payload: bytes
