"""State of a stage as bytes: what a Bytewax snapshot holds. No pickle.

`pack` takes a value of dicts (with text or integer keys), lists, texts, bytes, numbers, booleans,
None and NumPy arrays, nested as one likes; `unpack(pack(x))` gives the same back, arrays bit for
bit, C-contiguous, writable and their own. Tuples come back as lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import msgspec
import numpy as np

_ARRAY: Final = 1


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        header = msgspec.msgpack.encode((value.dtype.str, value.shape))
        return msgspec.msgpack.Ext(_ARRAY, bytes([len(header)]) + header + value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a snapshot cannot hold a {type(value).__name__}")


def _decode(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code} in a snapshot")
    stop = 1 + data[0]
    dtype, shape = msgspec.msgpack.decode(data[1:stop], type=tuple[str, tuple[int, ...]])
    return np.frombuffer(data[stop:], np.dtype(dtype)).reshape(shape).copy()


def pack(state: dict[str, Any]) -> bytes:
    """The bytes of a state; TypeError for a value that is none of the above."""
    return _ENCODER.encode(state)


def unpack(data: bytes) -> dict[str, Any]:
    """The state that `pack` was given."""
    state: dict[str, Any] = _DECODER.decode(data)
    return state


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode)
_DECODER = msgspec.msgpack.Decoder(dict[Any, Any], ext_hook=_decode, strict=True)


class Kept(ABC):
    """A stage's logic whose state is one such nest."""

    @abstractmethod
    def export(self) -> dict[str, Any]:
        """All state; arrays may be views of the live ones, good until the next slice."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take over what `export` gave; arrays in it are the caller's to give away."""

    def snapshot(self) -> bytes:
        """All state, such that `restore` in a new logic goes on bit for bit."""
        return pack(self.export())

    def restore(self, data: bytes) -> None:
        """Take over the state that `snapshot` gave."""
        self.load(unpack(data))
