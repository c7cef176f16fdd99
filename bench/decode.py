"""Question: how many frames a second become columns on one core, by kind of frame, and what do the usual
libraries make of the same frames?

Input, 16,384 frames each: the 27-byte frame of examples/press-line's hydraulic unit (CRC-16/MODBUS, a time,
nine fields); eight tlv items in 33 bytes; the standard JSON message of about 154 bytes, and the same as
MessagePack and CBOR; a product of 200 fields in five cases of 81 bytes; a Python function of the plant
(three values out of four bytes); tall JSON of 16 elements. `half_bad`: every other frame fails its check, is
cut off, is no JSON, or fits no case. Peers: `struct` with a table-driven CRC, `construct` with the same CRC,
msgspec into NumPy arrays, Python's json, pyarrow.json (newline-delimited messages in bulk, without threads).
Median of the rounds in processor time of this process, so that other work on the machine counts little; the
Python function, which has a process of its own, by the clock.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import cbor2
import msgspec
import numpy as np
import pyarrow.json

from bench import decode_binary, decode_json
from flows import specs
from flows.plant_reader import load_plant, read_folder
from operators.decode.binary_decoder import BinaryDecoder, layout_of
from operators.decode.columns import Decoder
from operators.decode.decoders import build_decoder
from operators.decode.json_rows_spec import Naming
from operators.decode.json_spec import JsonSpec, Rows
from operators.decode.spec import DecodeSpec, ProductDecode
from operators.decode.udf_spec import UdfSpec

FRAMES: Final = 16_384
ROUNDS: Final = 15
FLOORS: Final = {"fixed_27_bytes": 20e6, "tlv_8_items": 2e6, "json_154_bytes": 3e6, "fields_200": 1e6}
TLV: Final = """
format: binary
tlv:
  key: [u8, u8]
  items:
    "01 67": {t: {as: s16, scale: 0.1}}
    "02 68": {h: {as: u8, scale: 0.5}}
    "03 73": {p: {as: u16, scale: 0.1}}
    "04 02": {a: {as: s16, scale: 0.01}}
    "05 00": {d: {as: u8}}
    "06 01": {e: {as: u8}}
    "07 65": {lux: {as: u16}}
    "08 71": {x: {as: s16, scale: 0.001}, y: {as: s16, scale: 0.001}, z: {as: s16, scale: 0.001}}
"""
UDF: Final = """\
def decode(frames):
    return [[{"metrics": {"t": (f[0] << 8 | f[1]) / 10, "h": f[2], "on": bool(f[3])}}] for f in frames]
"""


def run() -> dict[str, Any]:
    """Measure every kind and its peers; frames a second."""
    chance = random.Random(4)
    fixed, fixed_frames = _fixed()
    messages = decode_json._messages(digits=2)
    documents = [json.loads(message) for message in messages]
    found: dict[str, Any] = {
        "fixed_27_bytes": _with_bad(fixed, fixed_frames, lambda f: f[:-1] + bytes([f[-1] ^ 1])),
        "tlv_8_items": _with_bad(
            _layout(TLV, ["t", "h", "p", "a", "d", "e", "lux", "x", "y", "z"]), _tlv(chance), lambda f: f[:-1]
        ),
        "json_154_bytes": _with_bad(_json("json"), messages, lambda f: f[:-3]),
        "fields_200": _with_bad(*_two_hundred(chance), lambda f: b"\x09" + f[1:]),
        "msgpack": {"frames_s": rate(_json("msgpack"), [msgspec.msgpack.encode(one) for one in documents])},
        "cbor": {"frames_s": rate(_json("cbor"), [cbor2.dumps(one) for one in documents])},
        "python_function": {"frames_s": rate(_udf(), _four_bytes(chance), 3, time.perf_counter)},
    }
    found["json_154_bytes"]["mb_s"] = found["json_154_bytes"]["frames_s"] * _mean(messages) / 1e6
    elements = rate(_tall(), _tall_messages(chance), rounds=3) * 16
    found["json_tall"] = {"elements_s": elements}
    table = decode_binary.crc_table()
    found["peers"] = {
        "struct_27_bytes": _peer(lambda: [decode_binary.plain(one, table) for one in fixed_frames]),
        "construct_27_bytes": _construct(fixed_frames, table),
        "msgspec_to_numpy_json": _peer(lambda: decode_json._with_msgspec(messages)),
        "python_json": _peer(lambda: decode_json._with_json(messages)),
        "pyarrow_json": _peer(lambda: _pyarrow(messages)),
    }
    for name, floor in FLOORS.items():
        found[name]["floor_frames_s"] = floor
        found[name]["half_bad_to_clean"] = found[name]["half_bad_frames_s"] / found[name]["frames_s"]
    return found


def rate(
    decoder: Decoder,
    raw: list[bytes],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Frames a second."""
    batch = decode_binary.as_batch(raw) if len({len(one) for one in raw}) == 1 else decode_json._batch(raw)
    rows = np.arange(len(raw), dtype=np.int64)
    params = np.full((len(decoder.param_names), len(raw)), np.nan)
    decoder.decode(batch, rows, params)
    return len(raw) / _median(lambda: decoder.decode(batch, rows, params), rounds, clock)


def _with_bad(decoder: Decoder, raw: list[bytes], spoil: Callable[[bytes], bytes]) -> dict[str, Any]:
    bad = [spoil(one) if n % 2 else one for n, one in enumerate(raw)]
    return {"frames_s": rate(decoder, raw), "half_bad_frames_s": rate(decoder, bad)}


def _median(work: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds, of this process' processor time unless another clock is given."""
    took = []
    for _ in range(rounds):
        began = clock()
        work()
        took.append(clock() - began)
    return statistics.median(took)


def _peer(work: Callable[[], Any]) -> float:
    return FRAMES / _median(work, 3)


def _mean(raw: list[bytes]) -> float:
    return sum(len(one) for one in raw) / len(raw)


def _fixed() -> tuple[Decoder, list[bytes]]:
    plant, problems = load_plant(read_folder(decode_binary.EXAMPLE), {}, name_hint="press-line")
    if plant is None:
        raise ValueError(problems.render())
    product = specs.decode(plant).products["hydraulic-v1"]
    raw = decode_binary.frames(decode_binary.crc_table())[:FRAMES]
    return BinaryDecoder(product.decode.layout, product.metrics), raw


def _layout(text: str, names: list[str]) -> Decoder:
    return BinaryDecoder(layout_of(text), tuple((name, "number") for name in names))


def _tlv(chance: random.Random) -> list[bytes]:
    def one() -> bytes:
        r = chance.randrange
        items = (
            struct.pack(">BBh", 1, 0x67, r(-400, 800)),
            struct.pack(">BBB", 2, 0x68, r(200)),
            struct.pack(">BBH", 3, 0x73, r(9000, 11000)),
            struct.pack(">BBh", 4, 0x02, r(-999, 999)),
            struct.pack(">BBBBBB", 5, 0x00, r(2), 6, 0x01, r(2)),
            struct.pack(">BBH", 7, 0x65, r(65_000)),
            struct.pack(">BBhhh", 8, 0x71, r(-2000, 2000), r(-2000, 2000), r(-2000, 2000)),
        )
        return b"".join(items)

    return [one() for _ in range(FRAMES)]


def _two_hundred(chance: random.Random) -> tuple[Decoder, list[bytes]]:
    lines = ["format: binary", "cases:"]
    names = [f"c{case}_{k}" for case in range(5) for k in range(40)]
    for case in range(5):
        lines += [f"  - when: {{byte: {{0: {case}}}, length: 81}}", "    fields:"]
        lines += [f"      c{case}_{k}: {{at: {1 + 2 * k}, as: s16, scale: 0.1}}" for k in range(40)]
    raw = [bytes([n % 5]) + chance.randbytes(80) for n in range(FRAMES)]
    return _layout("\n".join(lines), names), raw


def _json(kind: str) -> Decoder:
    spec = DecodeSpec(format=kind, plain={}, layout=JsonSpec())
    return build_decoder(ProductDecode("p", spec, decode_json.METRICS), 64)


def _udf() -> Decoder:
    spec = DecodeSpec(format="udf", plain={}, layout=UdfSpec("products/u.py", "decode", UDF))
    metrics = (("t", "number"), ("h", "number"), ("on", "boolean"))
    return build_decoder(ProductDecode("p", spec, metrics), 64)


def _four_bytes(chance: random.Random) -> list[bytes]:
    return [chance.randbytes(4) for _ in range(FRAMES)]


def _tall() -> Decoder:
    rows = Rows(("v", -1), metric=Naming((("id",),)), values=(("x",),))
    spec = DecodeSpec(format="json", plain={}, layout=JsonSpec(container=None, rows=rows))
    metrics = tuple((f"m{k}", "number") for k in range(16))
    return build_decoder(ProductDecode("p", spec, metrics), 64)


def _tall_messages(chance: random.Random) -> list[bytes]:
    return [
        json.dumps({"v": [{"id": f"m{k}", "x": round(chance.random(), 3)} for k in range(16)]}).encode()
        for _ in range(FRAMES // 8)
    ]


def _pyarrow(messages: list[bytes]) -> Any:
    return pyarrow.json.read_json(
        io.BytesIO(b"\n".join(messages)), read_options=pyarrow.json.ReadOptions(use_threads=False)
    )


def _construct(raw: list[bytes], table: list[int]) -> float | str:
    """The 27-byte frame by construct, its CRC by the same table."""
    try:
        import construct as c
    except ImportError:
        return "not installed"
    layout = c.Struct(
        "kind" / c.Const(0x48, c.Int8ub),
        "at" / c.Int64ub,
        "pressure" / c.Int16ub,
        "oil" / c.Int16sb,
        "level" / c.Int8ub,
        "bits" / c.Int16ub,
        "hours" / c.Int32ub,
        "current" / c.Int16ub,
        "flow" / c.Int16ub,
        "firmware" / c.Int8ub,
        "crc" / c.Int16ul,
    )

    def one(frame: bytes) -> Any:
        found = layout.parse(frame)
        return found if found.crc == decode_binary.crc16(frame[:-2], table) else None

    part = raw[:2048]
    return len(part) / _median(lambda: [one(frame) for frame in part], 3)
