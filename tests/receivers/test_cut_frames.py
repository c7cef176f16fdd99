"""Frames of which a receiver kept only the beginning are rejected for what they were."""

from __future__ import annotations

from operators.batch import Address
from operators.decode.routing import Router
from operators.decode.spec import DecodePlan, RoutingSpec, SourceSpec
from operators.rejects import Reason


def test_the_header_of_a_cut_frame_decides() -> None:
    router = Router(DecodePlan({}, RoutingSpec(sources=(SourceSpec("line", "tcp"),))))
    large = router.route(
        Address("line", "t", headers=(("too_large", "16000001 bytes, the first 4096 are kept"),))
    )
    assert (large.verdict, large.message) == (
        Reason.too_large,
        "the frame has 16000001 bytes, the first 4096 are kept",
    )
    file = Router(DecodePlan({}, RoutingSpec(sources=(SourceSpec("drops", "files"),))))
    damaged = file.route(Address("drops", "oven.csv", headers=(("resync", "its gz stream ends too early"),)))
    assert (damaged.verdict, damaged.message) == (Reason.resync, "its gz stream ends too early")
    garbage = router.route(Address("line", "t", headers=(("resync", "length 9, at most 8 allowed"),)))
    assert (garbage.verdict, garbage.message) == (
        Reason.resync,
        "garbage between frames: length 9, at most 8 allowed",
    )
