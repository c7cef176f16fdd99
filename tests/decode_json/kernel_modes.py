"""JSON kernels over a list of awkward frames; `python -m tests.decode_json.kernel_modes` prints what
came out, so that compiled, bounds-checked and uncompiled kernels can be compared."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from typing import Any

import numpy as np

from operators.decode.columns import Decoder
from operators.decode.json_decoder import JsonDecoder
from operators.decode.json_rows import JsonRowsDecoder
from operators.rejects import Reason
from tests.decode_json.frames import batch, good_spec

KINDS = {"tempC": "number", "on": "boolean", "mode": "string", 'q"é': "number"}
TYPES = tuple(KINDS.items())
SPECS = (
    "format: json",
    "format: json\ntimestamp: {path: t, unit: auto}\nmetrics: {tempC: 'a[1].b', mode: m, on: '[0]', _x: x}",
    "format: json\nrows: 'v[*]'\ndevice: sn\nmetric: id\nvalue: x\nquality: q\ntimestamp: t",
    "format: json\nrows: '[*].`q\"é`[*]'\ntimestamp: t",
)
WHOLE = [
    b'{"device_timestamp":1772355600000,"data":{"metrics":{"tempC":21.5,"on":true,"mode":"run","zz":1}}}',
    b'{"device_timestamp":"2026-03-01T09:00:00.123456789+09:00","data":{"metrics":{"tempC":-1e-3}}}',
    b'{"data":{"metrics":{"tempC":1,"tempC":123456789012345678901234567890e-20,"mode":"\\ud83d\\ude00\\n"}}}',
    b'{"t":1e9,"a":[0,{"b":4.9e-324}],"m":"\\u0000","x":9007199254740993}',
    b'{"v":[{"sn":"a","id":"tempC","x":1,"q":3221225472,"t":5},{"sn":"b","id":"on","x":false,"q":"bad"}]}',
    b'[{"q\\"\\u00e9":[{"tempC":2.2250738585072011e-308},{"t":"2024-02-29 23:59:60"}]},[],{"q\\"":1}]',
    ' {"data" : {"metrics" : {"q\\"é" : 1.7976931348623157e308 }}}\r\n'.encode(),
    b"[" * 66,
    b'{"a":' * 63 + b"1" + b"}" * 63,
]


def frames() -> list[bytes]:
    """Each whole frame, cut at every third byte, and with single bytes changed."""
    found = list(WHOLE)
    for whole in WHOLE[:7]:
        found += [whole[:at] for at in range(1, len(whole), 3)]
        for at in range(0, len(whole), 5):
            found += [whole[:at] + bytes([byte]) + whole[at + 1 :] for byte in (0x22, 0x5C, 0x7D, 0x5D, 0xC3)]
    return found


def outcome() -> list[Any]:
    """A line for each spec: how the frames ended, and a digest of every array."""
    payloads = frames()
    found: list[Any] = []
    for text in SPECS:
        layout = good_spec(text, KINDS).layout
        make = JsonRowsDecoder if layout.rows is not None else JsonDecoder
        decoder: Decoder = make(layout, TYPES)
        decoded = decoder.decode(batch(payloads), np.arange(len(payloads)), np.empty((0, len(payloads))))
        digest = hashlib.sha256()
        for array in (decoded.frame, decoded.ts_ns, decoded.value, decoded.quality, decoded.place):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps([sorted(decoded.detail.items()), sorted(decoded.texts.items())]).encode())
        ended = np.bincount(decoded.status, minlength=len(Reason) + 1).tolist()
        found.append([ended, len(decoded.frame), sorted(decoded.unknown), digest.hexdigest()])
    return found


def main() -> int:
    """Print the outcome as one line of JSON."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # uncompiled, a wrapping product warns
        print(json.dumps(outcome()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
