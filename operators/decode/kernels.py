"""The kernels of JSON frames and of `derive`, compiled once. Those of binary layouts, which take as long
as all others together, are `binary_kernels` of the warm-up list: another process compiles them meanwhile."""

from __future__ import annotations

import numpy as np

from operators.batch import Address, FrameBatch, Ticks
from operators.decode import (
    evaluate,
    json_kernels,
    json_rows_kernels,
    known_names,
    member_kernels,
    packed_kernels,
)
from operators.decode.json_decoder import JsonDecoder
from operators.decode.json_spec import JsonSpec


def warm_up() -> None:
    """Compile (or load from disk) the kernels with the types of the hot path."""
    payload = np.frombuffer(b'{"data":{"metrics":{"x":1}}}', np.uint8).copy()
    frames = FrameBatch(
        payload=payload,
        offset=np.zeros(1, np.int64),
        length=np.full(1, len(payload), np.int64),
        address=np.zeros(1, np.int32),
        addresses=(Address("", ""),),
        ingest_ns=np.zeros(1, np.int64),
        position=np.zeros(1, np.int64),
        flags=np.zeros(1, np.uint8),
        ticks=Ticks.none(),
    )
    JsonDecoder(JsonSpec(), (("x", "number"),)).decode(frames, np.zeros(1, np.int64), np.empty((0, 1)))
    json_kernels.read_iso_time(payload)
    json_rows_kernels.warm_up()
    packed_kernels.warm_up()
    member_kernels.warm_up()
    known_names.warm_up()
    evaluate.warm_up()
