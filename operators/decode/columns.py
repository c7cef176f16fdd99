"""What a decoder gives back, and the protocol of a decoder: bytes of one product -> columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from operators.batch import Bytes, Float64, FrameBatch, Int32, Int64


class Sentences(MutableMapping[int, str]):
    """frame -> the sentence of its reject, made when it is asked for: of a reject that nobody reads
    nothing is written. make: frame -> sentence, of every frame whose status (int32[R]) is above 0."""

    __slots__ = ("_make", "_status", "_told")

    def __init__(self, status: Int32, make: Callable[[int], str]) -> None:
        self._status, self._make = status, make
        self._told: dict[int, str] = {}

    def __getitem__(self, frame: int) -> str:
        told = self._told.get(frame)
        if told is not None:
            return told
        if 0 <= frame < len(self._status) and self._status[frame] > 0:
            return self._make(frame)
        raise KeyError(frame)

    def __setitem__(self, frame: int, sentence: str) -> None:
        self._told[frame] = sentence

    def __delitem__(self, frame: int) -> None:
        del self._told[frame]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted({*self._told, *np.flatnonzero(self._status > 0).tolist()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)


IGNORED: Final = -1  # status of a frame that a case ignores: filtered, no reading


@dataclass(slots=True, eq=False)
class Decoded:
    """Readings out of R frames, in the order of the frames, N readings in all.

    frame: int32[N] which of the R frames; index: int32[N] from 0 within its frame.
    ts_ns: int64[N] event time; time_source: uint8[N]: 0 = the device's, 1 = the hub's,
    2 = none in the frame (ts_ns is then the frame's ingest time).
    value: float64[M, N]; quality: uint8[M, N]; columns as in `ReadingBatch`.
    texts: code -> text. status: int32[R]: 0 = good, a `Reason` = the frame is a reject, IGNORED.
    place: int64[R] byte offset of what is wrong (-1: none). detail: frame -> the sentence of its
    reject, place included. unknown: name -> how many readings carried a
    metric that the product does not declare; `unknown_frame`: uint8[R], frames that had one.
    """

    frame: Int32
    index: Int32
    ts_ns: Int64
    time_source: Bytes
    value: Float64
    quality: Bytes
    status: Int32
    place: Int64
    texts: dict[int, str] = field(default_factory=dict)
    detail: MutableMapping[int, str] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    unknown_frame: Bytes | None = None
    names: list[str] | None = None  # N device_ids, where the payload names one for each reading ("": none)


class Decoder(Protocol):
    """One product's way from bytes to readings; holds no state between calls."""

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """Decode the frames at `rows` (int64[R], rising).

        params: float64[P, R], the product's parameters for each frame's device, in the order of
        `param_names`, NaN = none. Never raises for any payload: what is wrong with a frame is in
        `status`. Nothing of a rejected frame comes out.
        """

    param_names: tuple[str, ...]
