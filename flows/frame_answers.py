"""Frames by hand -> answers: what `penstock decode`, `check` and `test` show of a decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from operators.batch import Address, FrameBatch
from operators.decode.binary_decoder import single_batch
from operators.decode.binary_tree import BinarySpec
from operators.decode.decoders import build_decoder
from operators.decode.evaluate import BOOL, FLOAT, INT, NULL, TEXT
from operators.decode.explain import Answer, Frame, explain, typed
from operators.decode.spec import ProductDecode
from operators.rejects import Reason

_KINDS: Final = {"number": FLOAT, "integer": INT, "boolean": BOOL, "string": TEXT}
_BAD: Final = 2
_ABSENT: Final = 3


@dataclass(slots=True)
class Given:
    """What is decoded with: a layout, or the decoder of a product; units, ranges and parameters."""

    layout: BinarySpec | None
    product: ProductDecode | None
    units: Mapping[str, str]
    params: Mapping[str, float]
    device_params: Mapping[str, Mapping[str, float]]
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def answers_of(
    given: Given, frames: Sequence[Frame], headers: Sequence[str] | None = None, *, point: bool
) -> list[Answer]:
    """What each frame gives; with `point` (layouts only) also which bits became which value."""
    if not frames:
        return []
    if given.layout is not None:
        return explain(given.layout, frames, point=point)
    return by_decoder(given.product, frames, headers) if given.product is not None else []


def by_decoder(
    product: ProductDecode, frames: Sequence[Frame], headers: Sequence[str] | None = None
) -> list[Answer]:
    """Answers by the decoder that the engine uses, typed by the product's metrics.

    headers: of each frame the header line of its CSV file, "" = none.
    """
    decoder = build_decoder(product, 64)
    batch: FrameBatch = single_batch(
        [frame.payload for frame in frames],
        [frame.port for frame in frames],
        [frame.ingest_ns or 0 for frame in frames],
    )
    batch.address = np.arange(len(frames), dtype=np.int32)
    batch.addresses = tuple(
        Address("", "", frame.port, (("csv", line),) if line else ())
        for frame, line in zip(frames, headers or [""] * len(frames), strict=True)
    )
    params = np.array(
        [[frame.params.get(name, math.nan) for frame in frames] for name in decoder.param_names], np.float64
    ).reshape(len(decoder.param_names), len(frames))
    found = decoder.decode(batch, np.arange(len(frames), dtype=np.int64), params)
    answers = []
    for n in range(len(frames)):
        status, place = int(found.status[n]), int(found.place[n])
        message = found.detail.get(n, "the frame is not as the product says")
        reject = (Reason(status).name, None if place < 0 else place, message) if status > 0 else None
        answers.append(Answer(reject=reject, ignored=status < 0))
    for row in range(len(found.frame)):
        n = int(found.frame[row])
        metrics = {}
        for m, (name, kind) in enumerate(product.metrics):
            quality = int(found.quality[m, row])
            if quality != _ABSENT:
                shown = NULL if quality >= _BAD else _KINDS[kind]
                metrics[name] = typed(float(found.value[m, row]), shown, found.texts)
        none = found.time_source[row] == 2 and frames[n].ingest_ns is None
        answers[n].readings.append((None if none else int(found.ts_ns[row]), metrics))
    return answers
