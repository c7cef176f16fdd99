"""Binary layouts in frames that are text, and what is told of texts that are none."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.decode.columns import Decoded
from operators.decode.decoders import build_decoder
from operators.decode.encoded import unpack_frame
from operators.decode.spec import ProductDecode
from operators.rejects import Reason
from tests.decode_json.frames import batch, decode_spec, good_spec

KINDS = {"tempC": "number"}
LAYOUT = "format: binary\nfields: {tempC: {at: 0, as: s16, scale: 0.1}}"


def decode(encoding: str, payloads: list[bytes]) -> Decoded:
    spec = good_spec(f"{LAYOUT}\nencoding: {encoding}", KINDS)
    decoder = build_decoder(ProductDecode("p", spec, tuple(KINDS.items())), 64)
    return decoder.decode(batch(payloads), np.arange(len(payloads)), np.empty((0, len(payloads))))


TAKEN = [
    ("raw", b"\x01\x34"),
    ("hex", b"0134"),
    ("hex", b" 0x01 34\r\n"),
    ("hex", b"0X01:34"),
    ("hex", b"01-3 4"),
    ("base64", b"ATQ="),
    ("base64", b"ATQ\n"),
    ("base64url", b"ATQ"),
]


@pytest.mark.parametrize(("encoding", "payload"), TAKEN)
def test_the_same_frame_written_in_many_ways(encoding: str, payload: bytes) -> None:
    decoded = decode(encoding, [payload, payload])
    assert decoded.detail == {}
    assert decoded.value[0].tolist() == [30.8, 30.8]


REFUSED = [
    ("hex", b"01g4", 2, "byte 2 is no hexadecimal digit"),
    ("hex", b"  0x013", 7, "an odd number of hexadecimal digits (3)"),
    ("hex", b"01340x", 5, "byte 5 is no hexadecimal digit"),
    ("hex", "0１".encode(), 1, "byte 1 is no hexadecimal digit"),
    ("base64", b"AT-=", 2, "byte 2 is no base64 digit"),
    ("base64url", b"AT+=", 2, "byte 2 is no base64url digit"),
    ("base64", b"A", 1, "1 letters are no whole base64"),
    ("base64", b"ATQ==", 5, "5 letters are no whole base64"),
    ("base64", b"AT=Q", 2, "padding at byte 2, where none belongs"),
    ("base64", b"A===", 1, "padding at byte 1, where none belongs"),
]


@pytest.mark.parametrize(("encoding", "payload", "place", "told"), REFUSED)
def test_texts_that_stand_for_no_bytes(encoding: str, payload: bytes, place: int, told: str) -> None:
    good = {"hex": b"0134"}.get(encoding, b"ATQ=")
    decoded = decode(encoding, [good, payload, good])
    assert decoded.status.tolist() == [0, Reason.encoding, 0]
    assert (decoded.place[1], decoded.detail) == (place, {1: told})
    assert decoded.frame.tolist() == [0, 2]
    assert decoded.value[0].tolist() == [30.8, 30.8]


def test_what_the_layout_refuses_is_told_of_the_decoded_bytes() -> None:
    decoded = decode("hex", [b"zz", b"01", b"", b"0134"])
    assert decoded.status.tolist() == [Reason.encoding, Reason.short, Reason.short, 0]
    assert decoded.detail[1] == "in the decoded bytes: the frame ends before the field at byte 0"


def test_an_unknown_encoding() -> None:
    _, problems = decode_spec(f"{LAYOUT}\nencoding: base46", KINDS)
    assert problems == "products/p.yaml:3:11  encoding: unknown encoding 'base46'; did you mean 'base64'?"


@given(st.binary(max_size=40), st.data())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_whatever_was_written_is_read(data: bytes, draw: st.DataObject) -> None:
    between = draw.draw(st.sampled_from([b"", b" ", b"\r\n", b"\t "]))
    hexed = between.join(data[at : at + 1].hex().encode() for at in range(len(data)))
    assert unpack_frame(hexed, "hex") == data
    assert unpack_frame(b"0x" + hexed.upper(), "hex") == data
    for encoding, write in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
        text = write(data)
        assert unpack_frame(between.join([text[:4], text[4:]]), encoding) == data
        assert unpack_frame(text.rstrip(b"="), encoding) == data


@given(st.binary(max_size=12), st.sampled_from(["hex", "base64", "base64url"]))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_no_bytes_break_it(raw: bytes, encoding: str) -> None:
    found = unpack_frame(raw, encoding)
    assert isinstance(found, bytes) or 0 <= found[0] <= len(raw)
