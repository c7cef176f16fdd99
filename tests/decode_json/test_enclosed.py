"""Text within frames and its checks, against a plain bitwise sum; arrays of binary frames in JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Address
from operators.decode.columns import Decoded
from operators.decode.decoders import build_decoder
from operators.decode.spec import ProductDecode
from operators.rejects import Reason
from tests.decode_json.frames import INGEST_NS, batch, decode_spec, good_spec

KINDS = {"t": "number", "n": "number", "mode": "string"}
# an example that many pages on NMEA 0183 print
GGA = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n"
NMEA = 'format: csv\ncheck: {xor8: {from: "$", to: "*"}}\ncolumns: {t: 10, mode: 1}'


def run(text: str, payloads: list[bytes]) -> Decoded:
    product = ProductDecode("p", good_spec(text, KINDS), tuple(KINDS.items()))
    frames = batch(payloads, addresses=(Address("line1", "t"),))
    return build_decoder(product, 64).decode(frames, np.arange(len(payloads)), np.empty((0, len(payloads))))


def values(found: Decoded, name: str) -> list[Any]:
    row = list(KINDS).index(name)
    told = found.value[row].tolist()
    return [found.texts[int(one)] for one in told] if KINDS[name] == "string" else told


def test_a_sentence_of_nmea() -> None:
    bad = GGA.replace(b"545", b"546")
    found = run(
        NMEA, [GGA, bad, b"no sentence", GGA[:40], GGA.replace(b"*47", b"*4"), GGA.replace(b"47", b"zz")]
    )
    assert values(found, "t") == [545.4]
    assert values(found, "mode") == ["GPGGA"]
    reasons = [Reason(int(one)).name for one in found.status[1:]]
    assert reasons == ["check", "short", "short", "check", "check"]
    assert found.detail[1] == "the check at byte 63 says 47, the bytes give 44"
    assert found.detail[2] == "'$' and '*' around what the check covers are not in the frame"
    assert found.detail[5] == "the check at byte 63 is not there, the bytes give 47"
    assert found.place.tolist()[1:] == [63, 11, 40, 63, 63]
    flagged = run(NMEA.replace('"*"}', '"*", on_fail: flag}'), [GGA, bad])
    assert flagged.status.tolist() == [0, 0]
    assert flagged.quality[0].tolist() == [0, 1]


def test_text_in_a_binary_frame() -> None:
    body = b'{"data":{"metrics":{"t":4}},"device_timestamp":7}'
    frame = b"\x01\x02" + body
    check = sum(frame) & 0xFFFF
    text = 'format: json\npart: "2..-3"\ncheck: {sum16: {at: -2, order: le}}'
    found = run(text, [frame + check.to_bytes(2, "little"), frame + check.to_bytes(2, "big"), b"\x01", b""])
    assert values(found, "t") == [4.0]
    assert found.ts_ns.tolist() == [7_000_000]
    assert [int(one) for one in found.status] == [0, Reason.check, Reason.short, Reason.short]
    assert found.place.tolist() == [-1, 51, 1, 0]
    found = run('format: json\npart: {from: "#", to: "#"}', [b"x#" + body + b"#y", b"x#{]#", b"##"])
    assert found.status.tolist() == [
        0,
        Reason.malformed,
        Reason.empty if found.status[2] == Reason.empty else 1,
    ]
    assert found.place[1] == 3
    assert found.detail[1].endswith("at byte 3")


def plain_sum(kind: str, width: int, poly: int, init: int, reflect: bool, data: bytes) -> int:
    """Bit by bit; reflected as the mirror image of the plain one."""
    mask = (1 << width) - 1
    if kind == "sum":
        return (init + sum(data)) & mask
    if kind == "xor":
        for byte in data:
            init ^= byte
        return init
    register = init
    for byte in data:
        byte = int(f"{byte:08b}"[::-1], 2) if reflect else byte
        register ^= byte << (width - 8)
        for _ in range(8):
            register = ((register << 1) ^ poly if register >> (width - 1) else register << 1) & mask
    return int(f"{register:0{width}b}"[::-1], 2) if reflect else register


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([("crc", 8), ("crc", 16), ("crc", 32), ("sum", 8), ("sum", 16), ("xor", 8)]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from(["hex", "dec", "raw"]),
    st.text("abc,.019", max_size=20),
)
def test_every_check(
    kind: tuple[str, int], poly: int, init: int, reflect: bool, written: str, body: str
) -> None:
    name, width = kind
    poly, init = poly % (1 << width) | 1, init % (1 << width)
    total = plain_sum(name, width, poly, init, reflect and name == "crc", body.encode())
    said = {
        "hex": f"{total:0{width // 4}x}".encode(),
        "dec": str(total).encode(),
        "raw": total.to_bytes(width // 8, "big"),
    }[written]
    crc = f", poly: {poly}, reflect: {str(reflect).lower()}" if name == "crc" else ""
    keys = f"from: '!', to: '|', as: {written}, init: {init}{crc}"
    text = f"format: csv\ncheck: {{{name}{width}: {{{keys}}}}}\ncolumns: {{mode: 1}}"
    if b"|" in said:
        return
    found = run(text, [b"!" + body.encode() + b"|" + said, b"!" + body.encode() + b"d|" + said])
    assert found.status[0] in (0, Reason.empty), found.detail
    assert found.status[1] == Reason.check


def test_arrays_of_binary_frames() -> None:
    text = "format: json\nrows: 'f[*]'\nbinary: '.'\nfields: {t: {at: 0, as: s16}, n: {at: 2}}"
    whole = {"device_timestamp": 5000, "f": [base64.b64encode(b"\xff\xfe\x07").decode(), "000203"]}
    found = run(text, [json.dumps(whole).encode(), b'{"f":["00"]}', b'{"f":[5]}', b"{}", b'{"f":[]}'])
    assert values(found, "t") == [-2.0, 2.0]
    assert found.index.tolist() == [0, 1]
    assert found.ts_ns.tolist() == [5_000_000_000] * 2
    assert [int(one) for one in found.status] == [0, Reason.short, Reason.malformed, Reason.malformed, 0]
    assert dict(found.detail) == {
        1: "f[0]: in the text: the frame ends before the field at byte 0",
        2: "f[0]: the row: a text in hexadecimal or base64 is expected",
        3: "f: an array is expected",
    }
    text = "format: json\nrows: 'f[*]'\nbinary: d\ntimestamp: t\ndevice: sn\nfields: {t: {at: 0, as: s16}}"
    rows = [{"sn": "a", "d": "0001", "t": 1000}, {"sn": "b", "d": "0002"}]
    found = run(text, [json.dumps({"f": rows}).encode()])
    assert (found.names, found.ts_ns.tolist()) == (["a", "b"], [1_000_000_000, INGEST_NS])
    assert found.time_source.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "format: csv\ncheck: {xor9: {}}",
            "2:8  check: one of crc8, crc16, crc32, sum8, sum16, xor8 is expected",
        ),
        (
            'format: csv\ncheck: {xor8: {from: "$"}}',
            "where the check stands is missing: 'to', the text before it",
        ),
        ('format: csv\ncheck: {crc16: {to: "*"}}', "check.crc16: 'poly' is missing"),
        ('format: csv\ncheck: {xor8: {to: "*", pol: 1}}', "unknown key; did you mean 'at'?"),
        ('format: csv\ncheck: {xor8: {to: "*", over: "0..2"}}', "either 'over' or 'from' and 'to'"),
        ('format: csv\ncheck: {xor8: {to: "*", as: oct}}', "unknown word 'oct'; one of hex, dec, raw"),
        ("format: json\npart: 5", "2:7  part: bytes such as \"4..-3\" are expected, not '5'"),
        ("format: json\npart: {form: x}", "unknown key; did you mean 'from'?"),
        (
            "format: json\nrows: 'f[*]'\nbinary: x\nmetric: y",
            "'metric' goes with rows of JSON, not with 'binary'",
        ),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    spec, problems = decode_spec(text, KINDS)
    assert spec is None
    assert message in problems or message.startswith("unknown key"), problems
