"""A plant with a source of every kind: what cannot be decoded is rejected, and the next frame arrives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import typing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from flows.plant_file import SourceConfig
from flows.views import Views
from operators.spec import Duration, Size
from tests.conformance.processes import ROOT
from tests.conformance.subject import Subject
from tests.conformance.subjects import SUBJECTS
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

WAIVED = {
    "mqtt-amqtt": "the same source as with mosquitto",
    "opcua": "its frames are made by the source, out of what a server says in types",
    "sparkplug": "its frames are made by the source, out of what edge nodes say in types",
}
PRODUCT = """\
productId: p
version: 1
decode: {format: json, timestamp: device_timestamp, metrics: data.metrics}
contract: {timestamp: {max_age: 3650d}}
metrics: {v: {range: [0, 100]}}
"""
POISON = {
    b"\xff\xfe{}": "encoding",
    b"[" * 5000: "too_deep",
    b'{"data": {"metrics": {"v": 1e999}}}': "bad_number",
    b'{"device_timestamp": "yesterday", "data": {"metrics": {"v": 1}}}': "malformed",
    b'{"data": {"metrics": {"v": 1}': "malformed",
}


def test_poison_passes_into_rejects_and_the_next_frame_arrives(tmp_path: Path) -> None:
    kinds = [name for name in SUBJECTS if name not in WAIVED]
    subjects: dict[str, Subject] = {}
    running: subprocess.Popen[bytes] | None = None
    try:
        for name in kinds:
            (tmp_path / name).mkdir()
            subjects[name] = SUBJECTS[name](tmp_path / name)
        plant = written(tmp_path / "plant", {name: one.config for name, one in subjects.items()})
        log = (tmp_path / "run.log").open("wb")
        running = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(plant), "--data", str(tmp_path / "data")],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        views = Views(tmp_path / "data")
        until(
            lambda: (
                running.poll() is not None
                or all(state(tmp_path / "data", name) in ("connected", "silent") for name in kinds)
            ),
            "every source",
            told=(tmp_path / "run.log").read_text,
        )
        for number, one in enumerate(subjects.values()):
            one.send([good(1), *POISON, good(number + 2)])
        for one in subjects.values():
            one.settle()
        expected = len(POISON) + 2

        def decided() -> bool:
            rows = {row["source"]: row for row in views.ledger_rows()}
            return all(
                sum(rows.get(name, {}).get(term, 0) for term in ("frames_decoded", "frames_rejected"))
                == expected
                for name in kinds
            )

        until(decided, "every frame to be decided on", told=views.ledger_rows)
        reasons = sorted(POISON.values())
        # the ledger is ahead of rejects and values, which are written in bulk
        until(
            lambda: len(views.states()) == len(kinds) and rejected(views) == len(kinds) * len(reasons),
            "every reject and value",
        )
        for number, name in enumerate(kinds):
            told = views.rejects_by_reason().items()
            found = [reason for (source, _, reason), count in told if source == name for _ in range(count)]
            assert sorted(found) == reasons, name
            until(partial(has_value, views, name, float(number + 2)), f"the newest value of {name}")
        views.close()
    finally:
        if running is not None:
            running.terminate()
            running.wait(LIMIT_S)
        for one in subjects.values():
            one.close()


def rejected(views: Views) -> int:
    return sum(views.rejects_by_reason().values())


def has_value(views: Views, name: str, value: float) -> bool:
    newest = views.state(name)
    return newest is not None and newest["v"]["value"] == value


def good(value: int) -> bytes:
    """Told a millisecond later than that with a smaller value."""
    return json.dumps(
        {"device_timestamp": int(time.time() * 1000) + value, "data": {"metrics": {"v": value}}}
    ).encode()


def written(folder: Path, sources: dict[str, SourceConfig]) -> Path:
    """A plant of these sources, each of which has one device of its own name."""
    (folder / "products").mkdir(parents=True)
    (folder / "products" / "p.yaml").write_text(PRODUCT)
    (folder / "devices.csv").write_text("device_id,productId\n" + "".join(f"{name},p\n" for name in sources))
    plant = {
        "plant": "works",
        "sources": {name: keys(name, config) for name, config in sources.items()},
        "historian": {"listen": f"127.0.0.1:{free_port()}"},
        "server": {"listen": f"127.0.0.1:{free_port()}"},
    }
    (folder / "plant.yaml").write_text(json.dumps(plant))  # JSON is YAML
    return folder


def keys(name: str, config: SourceConfig) -> dict[str, Any]:
    """A configuration as people write it."""
    return as_written(config) | {"device": f"const:{name}", "product": "p"}


def as_written(struct: msgspec.Struct) -> dict[str, Any]:
    hints = typing.get_type_hints(type(struct), include_extras=True)
    tag = struct.__struct_config__.tag
    found: dict[str, Any] = {"kind": tag} if tag is not None else {}
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        if value is None or value == field.default:
            continue
        if hints[field.name] == Duration:
            value = f"{value // 1_000_000}ms"
        elif hints[field.name] == Size:
            value = f"{value}B"
        found[field.encode_name] = as_written(value) if isinstance(value, msgspec.Struct) else value
    return found


def state(data: Path, name: str) -> str:
    try:
        return str(json.loads((data / "run" / f"receiver-{name}.json").read_bytes())["state"])
    except (OSError, ValueError):
        return ""
