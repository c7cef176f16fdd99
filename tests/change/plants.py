"""A small plant that changes, as folders and as recordings."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.plant_file import Plant
from flows.plant_reader import load_plant

START_MS = 1_772_355_600_000  # 2026-03-01T09:00:00Z

FILES = {
    "plant.yaml": """\
plant: change-line
sources:
  line1:
    kind: tcp
    listen: "127.0.0.1:${LINE1_PORT:-7901}"
    framing: {kind: delimiter, delimiter: "\\n"}
    device: payload:id
    product: press
historian: {listen: "127.0.0.1:${HISTORIAN_PORT:-8923}"}
server: {listen: "127.0.0.1:${SERVER_PORT:-8980}"}
journal: {max: 100MB}
""",
    "products/press.yaml": """\
productId: press
version: 1
decode:
  format: json
  timestamp: t
  metrics: m
  derive: {load: "rpm * param.k"}
metrics:
  tempC: {unit: Cel, range: [-40, 150], max_step: 60}
  rpm: {range: [0, 6000]}
  load: {}
params: {tempHigh: 80, k: 2, note: none}
windows:
  - {every: 10s, aggregates: [count, min, max, mean, last]}
""",
    "rules/hot.yaml": """\
ruleId: hot
productId: press
type: threshold
condition: "tempC > param.tempHigh"
on_delay: 5s
severity: high
---
ruleId: fast
productId: press
type: threshold
condition: "rpm > 5000"
severity: low
""",
    "devices.csv": "device_id,productId,hub_id,k\np1,press,h1,\np2,press,h1,3\n",
}


def changed(files: Mapping[str, str], *edits: tuple[str, str, str]) -> dict[str, str]:
    """The files with texts replaced; each edit must find its text."""
    made = dict(files)
    for path, old, new in edits:
        assert old in made[path], (path, old)
        made[path] = made[path].replace(old, new)
    return made


def plant_of(files: Mapping[str, str]) -> Plant:
    """The plant of a folder's files."""
    plant, problems = load_plant({path: text.encode() for path, text in files.items()}, {})
    assert plant is not None, problems.render()
    return plant


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a folder; files that it has beyond these go."""
    for path in list(folder.rglob("*.yaml")) if folder.exists() else []:
        path.unlink()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def frame(second: float, device: str, **metrics: Any) -> dict[str, Any]:
    """One line of recorded input."""
    at = START_MS + round(1000 * second)
    payload = json.dumps({"id": device, "t": at, "m": metrics})
    return {"ingest_ts": at + 5, "source": "line1", "topic": "127.0.0.1:1", "payload": payload}


def applied(second: float, files: Mapping[str, str], **about: str) -> dict[str, Any]:
    """The line of a plant that is applied."""
    plant = plant_of(files)
    body = {path: base64.b64encode(data).decode() for path, data in plant.files.items()}
    return {"plant": plant.sha256, "files": body, **about, "at": START_MS + round(1000 * second)}


def parameter(second: float, number: int, device: str, param: str, value: Any) -> dict[str, Any]:
    """The line of an operator's action that sets a parameter."""
    body = {"id": f"{number:032x}", "kind": "param", "device_id": device, "param": param, "value": value}
    action = {**body, "by": "kim", "why": "test"}
    return {"action": action, "at": START_MS + round(1000 * second)}


def recording(path: Path, *lines: Mapping[str, Any]) -> Path:
    """The lines as a recording."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path
