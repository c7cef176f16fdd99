"""`penstock new --from`: payloads beyond JSON and bytes, and what devices tell of themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest

from flows.check_command import check_folder
from flows.heard import HeardFrame
from flows.heard_names import device_stem, metric_names, ucum
from flows.heard_plant import make_plant
from operators.batch import Address

START = 1_772_355_600_000


def frame(topic: str, payload: bytes | str, at: int, *, retained: bool = False) -> HeardFrame:
    data = payload.encode() if isinstance(payload, str) else payload
    return HeardFrame(Address("line1", topic, -1, ()), data, START + 1000 * at, retained)


def odd(n: int) -> dict[str, bytes | str]:
    """What is sent at a time, by topic."""
    body: dict[str, Any] = {"ts": START + 1000 * n, "temp": 21.5 + n, "mode": "run"}
    nested = {"supply": {"value": 60 + n, "unit": "°C"}, "flow": {"value": 1.2, "unit": "m³/h"}}
    both = (
        struct.pack(">BH", 0xFE, n) if n % 4 == 3 else json.dumps({"t": 20 + n, "at": "2026-03-01T09:00:00Z"})
    )
    return {
        "mp/pack-1/data": msgspec.msgpack.encode(body),
        "cb/cell-1/data": cbor2.dumps(body),
        "lora/node-1/up": bytes([1, 0x67, 0, 0xE1 + n]).hex().upper(),
        "hall/valve-1/temp": f"{20 + n / 10:.1f} °C",
        "plc/saw-1": f"temp={20 + n / 10:.1f},state=RUN",
        "telegraf/host-1/cpu": f"cpu,zone=a idle={90 + n},user={n} {START + 1000 * n}000000",
        "site/boiler-1": json.dumps({"time": START // 1000 + n, "values": nested}),
        "mix/press-1/up": both,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("odd") / "works"
    frames = [frame(topic, payload, n) for n in range(12) for topic, payload in odd(n).items()]
    return folder, make_plant(folder, frames).told


def test_all_of_it_decodes(made: tuple[Path, list[str]]) -> None:
    folder, told = made
    assert told[-1] == "decoded: 96 of 96 frames (100 %)"
    plant, problems = check_folder(folder)
    assert plant is not None, problems.render()
    assert problems.render() == ""
    found = {
        row["productId"].removesuffix("-v1"): {
            name: (one.type, one.unit) for name, one in plant.products[row["productId"]].metrics.items()
        }
        for row in plant.master.devices.values()
    }
    number, text = ("number", None), ("string", None)
    assert found == {
        "pack": {"temp": number, "mode": text},
        "cell": {"temp": number, "mode": text},
        "node": {f"byte{n}": ("integer", None) for n in range(4)},
        "valve": {"temp": ("number", "Cel")},
        "saw": {"temp": number, "state": text},
        "host": {"zone": text, "idle": number, "user": number},
        "boiler": {"supply": ("number", "Cel"), "flow": ("number", "m3/h")},
        "press": {"t": number, "frame": text},
    }
    formats = {name: product.decode.format for name, product in plant.products.items()}
    assert (formats["pack-v1"], formats["cell-v1"], formats["valve-v1"]) == ("msgpack", "cbor", "csv")
    assert "encoding: hex" in (folder / "products/node-v1.yaml").read_text()
    for name in ("host", "press", "saw"):
        assert f"products/{name}-v1.py decodes what no layout can say; look at it" in told


def test_what_devices_tell_of_themselves_is_left_out(tmp_path: Path) -> None:
    frames = [frame(f"homie/probe-{d}/env/temperature", f"{20 + n}.5", n) for n in range(5) for d in (1, 2)]
    frames += [frame(f"homie/probe-{d}/$state", "ready", 6) for d in (1, 2)]
    frames += [frame("homie/probe-1/env/temperature/$unit", "°C", 6)]
    frames += [frame("homeassistant/sensor/probe-1/config", '{"name": "t"}', 6)]
    frames += [frame("tele/probe-1/LWT", "Online", 0, retained=True)]
    made = make_plant(tmp_path / "works", frames)
    assert made.told[-1] == "decoded: 10 of 10 frames (100 %)"
    assert made.told[-2] == ("5 frames left out that devices tell of themselves, e.g. 'homie/probe-1/$state'")
    plant, _ = check_folder(tmp_path / "works")
    assert plant is not None
    assert list(plant.products) == ["probe-v1"]


def test_frames_of_another_shape_now_and_then_stay_rejects(tmp_path: Path) -> None:
    frames = [frame("hall/press-1/up", json.dumps({"t": n}), n) for n in range(20)]
    made = make_plant(tmp_path / "works", [*frames, frame("hall/press-1/up", b"\xfe\x01", 21)])
    assert made.told[-2] == "decoded: 20 of 21 frames (95.2 %), 1 rejected"
    assert not (tmp_path / "works/products/press-v1.py").exists()


def test_names() -> None:
    paths = [("data", "in", "value"), ("data", "out", "value"), ("id",), ("sub", "id"), ("a", 0), ("b", 0)]
    assert list(metric_names(paths).values()) == ["in", "out", "id", "sub_id", "a_0", "b_0"]
    assert device_stem(["tasmota_AB12CD", "tasmota_EE00F1"]) == "tasmota"
    assert device_stem(["line-press01", "line-press02"]) == "line-press"
    assert device_stem(["0x00124b"]) == "device"
    assert (ucum("°C"), ucum("C", "temp"), ucum("C", "charge"), ucum("kWh"), ucum("widgets")) == (
        *("Cel", "Cel", "", "kW.h", ""),
    )
