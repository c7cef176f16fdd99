"""Documented payloads of real devices, decoded by layouts under `specs/`, value by value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operators.decode.binary_decoder import layout_of
from operators.decode.explain import Frame, explain
from tests.reference.decode_reference import decode as plain_decode
from tests.reference.decode_reference import load as plain_load

DATA = Path(__file__).parents[3] / "shared" / "data" / "codecs" / "training.jsonl"
SPECS = Path(__file__).parent / "specs"

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the project's shared data is not here")


def cases() -> Iterator[Any]:
    if DATA.exists():
        for n, line in enumerate(DATA.read_text().splitlines()):
            case = json.loads(line)
            yield pytest.param(case, id=f"{n}-{case['codec'].rpartition('/')[2]}")


def equal(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, str) or isinstance(ours, str):
        return bool(ours == theirs)
    return ours is not None and math.isclose(float(ours), float(theirs), rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize("case", list(cases()))
def test_every_documented_value(case: dict[str, Any]) -> None:
    text = (SPECS / f"{case['codec'].rpartition('/')[2]}.yaml").read_text()
    payload, port = bytes.fromhex(case["bytes_hex"]), case["fport"]
    (answer,) = explain(layout_of(text), [Frame(payload, port)])
    assert answer.reject is None
    metrics = answer.readings[0][1]
    for name, value in case["expected"].items():
        assert name in metrics, (name, metrics)
        assert equal(metrics[name], value), (name, metrics[name], value)
    plain = plain_decode(plain_load(text), payload, port=port)
    assert [values for _, values in plain["readings"]] == [values for _, values in answer.readings]
