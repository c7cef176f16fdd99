"""Random layouts and frames: the kernel gives what the plain interpreter gives."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from operators.decode.binary_decoder import layout_of
from operators.decode.explain import Frame, explain
from tests.decode_binary.generated import FRAMES, layouts
from tests.reference.decode_reference import decode as plain_decode
from tests.reference.decode_reference import load as plain_load

ARRIVAL = 1_772_355_600_123_000_000


def same(ours: Any, theirs: Any) -> bool:
    """Equal values; a number beyond 2**53 is equal to its nearest double."""
    if isinstance(ours, str | bool | None) or isinstance(theirs, str | bool | None):
        return type(ours) is type(theirs) and ours == theirs
    try:
        wanted = float(theirs)
    except OverflowError:
        return False
    return float(ours) == wanted or math.isclose(ours, wanted, rel_tol=1e-14)


def compare(text: str, payload: bytes, port: int | None) -> None:
    try:
        spec = layout_of(text)
    except ValueError:
        assume(False)
    frame = Frame(payload, -1 if port is None else port, ARRIVAL, {"k": 3.0})
    (answer,) = explain(spec, [frame])
    plain = plain_decode(plain_load(text), payload, port, ARRIVAL, {"k": 3.0})
    told = f"\n{text}\n{payload.hex()} port {port}\nkernel {answer}\nplain  {plain}"
    if "reject" in plain:
        assert answer.reject is not None, told
        assert answer.reject[:2] == plain["reject"], told
        return
    assert answer.reject is None, told
    assert len(answer.readings) == len(plain["readings"]), told
    for (ts, metrics), (plain_ts, plain_metrics) in zip(answer.readings, plain["readings"], strict=True):
        assert ts == (ARRIVAL if plain_ts is None else plain_ts), told
        assert metrics.keys() == plain_metrics.keys(), told
        for name, value in metrics.items():
            assert same(value, plain_metrics[name]), f"{name}: {told}"


@settings(
    deadline=None,
    max_examples=100,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
@given(layouts(), FRAMES, st.sampled_from([None, 1, 2, 7]))
def test_kernel_equals_the_plain_interpreter(text: str, payload: bytes, port: int | None) -> None:
    compare(text, payload, port)
