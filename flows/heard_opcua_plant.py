"""`penstock new --from opc.tcp://...`: a plant of a server's variables, their types, units and ranges as the
server says and as they were."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from connectors.opcua.nodes import Item, write_nodes
from connectors.opcua.properties import Properties
from connectors.opcua.units import UCUM, unece_code
from connectors.typed import unpack
from flows.heard import counted
from flows.heard_kinds import ALIKE, Kind
from flows.heard_opcua import NODES, SOURCE, Server, Told, listen_opcua, server_of
from flows.heard_plant import (
    TAIL,
    Made,
    decoded,
    devices_text,
    plain,
    plant_head,
    product_names,
    write_plant,
)
from flows.heard_product import Heard, widened
from flows.scaffold import yaml_text
from operators.expression.ucum import UnitError, unit_of

_SHOWN: Final = 20
_MOST_VALUES: Final = 100  # of an enumeration, in a product


def opcua_plant(folder: Path, source: str, product: str, seconds: float) -> Made:
    """Write the plant, check it, and run what was heard through its decoder. Raises `ConfigError` rather
    than overwrite anything, and `ConnectError` where the server is not there or refuses."""
    told = listen_opcua(server_of(source), seconds)
    heard = _heard(told)
    kinds = _kinds(told.items)
    names = product_names(kinds, product)
    contents = {
        folder / "products" / f"{name}.yaml": _product(name, kind, told, heard)
        for name, kind in zip(names, kinds, strict=True)
    }
    contents[folder / NODES] = write_nodes(told.items)
    contents[folder / "devices.csv"] = devices_text(names, kinds)
    contents[folder / "plant.yaml"] = _plant(folder, told.server, any(one.texts for one in told.said))
    paths = write_plant(folder, contents, told.frames)
    return Made(paths, [*_told(names, kinds, told), *decoded(folder, told.frames)])


def _heard(told: Told) -> dict[tuple[str, str], Heard]:
    """What each device's metrics were."""
    found: dict[tuple[str, str], Heard] = {}
    for frame in told.frames:
        if frame.address.headers:
            continue
        for value in unpack(frame.payload):
            found.setdefault((frame.address.topic, value.metric), Heard()).take(value.value)
    return found


def _kinds(items: Sequence[Item]) -> list[Kind]:
    """Devices of a kind have mostly the same metrics."""
    devices: dict[str, set[Any]] = {}
    for item in items:
        devices.setdefault(item.device, set()).add(item.metric)
    kinds: list[Kind] = []
    for device, metrics in devices.items():
        kind = next((kind for kind in kinds if _alike(kind.traits, metrics)), None)
        if kind is None:
            kinds.append(kind := Kind("typed", set()))
        kind.traits |= metrics
        kind.devices.append(device)
    return kinds


def _alike(one: set[Any], other: set[Any]) -> bool:
    both = len(one & other)
    return both > 0 and both >= ALIKE * min(len(one), len(other))


def _product(name: str, kind: Kind, told: Told, heard: dict[tuple[str, str], Heard]) -> str:
    """The text of a product file."""
    metrics: dict[str, tuple[Properties, Heard]] = {}
    devices = set(kind.devices)
    for item, of in zip(told.items, told.said, strict=True):
        if item.device not in devices:
            continue
        was = heard.get((item.device, item.metric), Heard())
        before = metrics.get(item.metric)
        metrics[item.metric] = (
            (of, was) if before is None else (_both(before[0], of), _joined(before[1], was))
        )
    head = _HEAD.format(
        product=yaml_text(name), devices=counted(len(kind.devices), "device"), endpoint=told.server.endpoint
    )
    lines = [f"  {yaml_text(metric)}: {_metric(metric, *one)}" for metric, one in metrics.items()]
    return "\n".join([head, *lines, ""])


def _both(one: Properties, other: Properties) -> Properties:
    """What holds for a metric of two devices: the wider range, all texts, a unit only if it is the same."""
    same = (one.unit_id, one.unit) == (other.unit_id, other.unit)
    return Properties(
        kind=one.kind if one.kind == other.kind else _common(one.kind, other.kind),
        unit_id=one.unit_id if same else 0,
        unit=one.unit if same else "",
        low=min(one.low, other.low) if not math.isnan(one.low + other.low) else math.nan,
        high=max(one.high, other.high) if not math.isnan(one.high + other.high) else math.nan,
        texts=one.texts | other.texts,
    )


def _common(one: str, other: str) -> str:
    return "number" if {one, other} <= {"number", "integer"} else "string"


def _joined(one: Heard, other: Heard) -> Heard:
    return Heard(
        one.frames + other.frames, min(one.low, other.low), max(one.high, other.high),
        one.texts | other.texts, one.booleans + other.booleans,
    )  # fmt: skip


def _metric(name: str, of: Properties, was: Heard) -> str:
    known = of.low < of.high
    numbers = was.low <= was.high
    said, keys = [], []
    if of.texts:
        values = list(dict.fromkeys([*of.texts.values(), *was.texts]))
        listed = f", values: [{', '.join(map(yaml_text, values))}]" if len(values) <= _MOST_VALUES else ""
        return f"{{type: string{listed}}}"
    if of.kind == "string":
        shown = ", ".join(json.dumps(text[:40]) for text in was.texts)
        return f"{{type: string}}   # heard: {shown}" if shown else "{type: string}"
    if of.kind == "boolean":
        return "{type: boolean}"
    if of.kind == "integer":
        keys.append("type: integer")
    unit, more = _unit(of)
    keys += unit
    said += more
    if numbers:
        said.append(f"heard: {was.low:.6g} to {was.high:.6g}")
    if known and (not numbers or of.low <= was.low <= was.high <= of.high):
        keys.append(f"range: [{_number(of.low)}, {_number(of.high)}]")
        said.append("the range is the server's")
    elif numbers:
        low, high = widened(name, was.low, was.high)
        keys.append(f"range: [{low}, {high}]")
        said += [f"the server's range {_number(of.low)} to {_number(of.high)} does not hold"] * known
    return f"{{{', '.join(keys)}}}" + (f"   # {plain('; '.join(said))}" if said else "")


def _unit(of: Properties) -> tuple[list[str], list[str]]:
    """The key of a unit that UCUM knows; else a word on what the server says."""
    for text in (UCUM.get(unece_code(of.unit_id), ""), of.unit):
        if not text:
            continue
        try:
            unit_of(text)
        except UnitError:
            continue
        return [f"unit: {yaml_text(text)}"], []
    return [], [f"the server's unit: {of.unit}"] if of.unit else []


def _number(value: float) -> str:
    return f"{int(value)}" if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"


def _plant(folder: Path, server: Server, texts: bool) -> str:
    lines = [
        plant_head(folder),
        f"  {SOURCE}:",
        "    kind: opcua",
        f'    endpoint: "${{OPCUA_ENDPOINT:-{server.endpoint}}}"',
        f"    nodes: {NODES}",
        *["    enumerations: texts            # names of states in place of their numbers"] * texts,
    ]
    if server.username:
        lines += [f"    username: {yaml_text(server.username)}", '    password: "${OPCUA_PASSWORD:-}"']
    return "\n".join([*lines, TAIL])


def _told(names: Sequence[str], kinds: Sequence[Kind], told: Told) -> list[str]:
    lines = []
    for name, kind in zip(names, kinds, strict=True):
        shown = ", ".join(sorted(kind.devices)[:_SHOWN])
        more = f", and {len(kind.devices) - _SHOWN} more" if len(kind.devices) > _SHOWN else ""
        lines.append(
            f"{name}: {counted(len(kind.traits), 'metric')} of {counted(len(kind.devices), 'device')}"
        )
        lines.append(f"  devices: {shown}{more}")
    lines += [f"left out: {counted(many, 'variable')}: {why}" for why, many in told.left_out.items()]
    return [plain(line) for line in lines]


_HEAD: Final = """\
# yaml-language-server: $schema=../.schema/product.json
# Made by `penstock new --from` of {devices} of {endpoint}. Names and units are yours to say.
productId: {product}
version: 1
decode: {{format: typed}}                 # values come with names, times and qualities
contract: {{timestamp: {{max_age: 3650d}}}}   # a value is as old as its last change

metrics:"""
