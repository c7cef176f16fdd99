"""Frames, plans and slices for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from operators.batch import Address, FrameBatch, Slice, Ticks
from operators.contract.spec import Metric
from operators.decode.spec import DecodeSpec, parse_decode
from operators.document import Problems, load_yaml

INGEST_NS = 1_772_355_600_000_000_000  # 2026-03-01T09:00:00Z


def batch(payloads: Sequence[bytes], **columns: Any) -> FrameBatch:
    """One batch of frames from one address."""
    count = len(payloads)
    length = np.array([len(payload) for payload in payloads], np.int64)
    fields: dict[str, Any] = {
        "payload": np.frombuffer(b"".join(payloads), np.uint8).copy(),
        "offset": np.cumsum(length) - length,
        "length": length,
        "address": np.zeros(count, np.int32),
        "addresses": (Address("line1", "t"),),
        "ingest_ns": INGEST_NS + np.arange(count, dtype=np.int64) * 1_000_000,
        "position": np.arange(count, dtype=np.int64),
        "flags": np.zeros(count, np.uint8),
        "ticks": Ticks.none(),
    }
    return FrameBatch(**(fields | columns))


def slices(
    frames: Sequence[tuple[Address, bytes, int]], ticks: Sequence[tuple[int, int]] = (), cut: int = 10_000
) -> list[Slice]:
    """Frames (address, payload, flags), and ticks (before which frame, ns), as slices of `cut` frames."""
    found = []
    for first in range(0, max(1, len(frames)), cut):
        part = list(frames[first : first + cut])
        last = first + cut >= len(frames)
        addresses: list[Address] = []
        for address, _, _ in part:
            if address not in addresses:
                addresses.append(address)
        here = [(row, ns) for row, ns in ticks if first <= row < first + len(part) or (last and row >= first)]
        found.append(
            Slice(
                last_entry=first,
                position=first + len(part),
                frames=batch(
                    [payload for _, payload, _ in part],
                    address=np.array([addresses.index(a) for a, _, _ in part], np.int32),
                    addresses=tuple(addresses),
                    ingest_ns=INGEST_NS + np.arange(first, first + len(part), dtype=np.int64) * 1_000_000,
                    position=np.arange(first, first + len(part), dtype=np.int64),
                    flags=np.array([flags for _, _, flags in part], np.uint8),
                    ticks=Ticks(
                        np.array([row - first for row, _ in here], np.int64),
                        np.array([ns for _, ns in here], np.int64),
                    ),
                ),
            )
        )
    return found


def metrics_of(kinds: dict[str, str]) -> dict[str, Metric]:
    """Declared metrics by name."""
    return {name: Metric(name=name, type=kind) for name, kind in kinds.items()}  # type: ignore[arg-type]  # texts


def decode_spec(
    text: str, kinds: dict[str, str], params: dict[str, float | str] | None = None
) -> tuple[DecodeSpec | None, str]:
    """A `decode:` section as YAML text -> its spec and every problem as it is printed."""
    problems = Problems()
    node = load_yaml(text, "products/p.yaml", problems)[0]
    spec = parse_decode(node, metrics_of(kinds), params or {}, problems)
    return spec, problems.render()


def good_spec(text: str, kinds: dict[str, str], params: dict[str, float | str] | None = None) -> DecodeSpec:
    """The same, where nothing may be wrong."""
    spec, problems = decode_spec(text, kinds, params)
    assert problems == ""
    assert spec is not None
    return spec
