"""`penstock new --from mqtt://HOST:PORT/spBv1.0/#`: a plant of the edge nodes of a broker, as their births
tell of them. They are asked for their births, which is all that is said to them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import paho.mqtt.client as mqtt

from connectors.errors import ConfigError
from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug.messages import Sparkplug
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType
from connectors.typed import unpack
from flows.heard import HeardFrame, counted
from flows.heard_kinds import ALIKE, Kind
from flows.heard_mqtt import Broker, listen
from flows.heard_plant import TAIL, Made, decoded, plain, plant_head, product_names, write_plant
from flows.heard_product import Heard, widened
from flows.scaffold import metric_name, yaml_text
from operators.batch import Address
from operators.sparkplug import COMMANDS, SparkplugNames, split_topic

SOURCE: Final = "scada"
_SHOWN: Final = 20
_INTEGERS: Final = range(DataType.Int8, DataType.UInt64 + 1)
_NUMBERS: Final = (DataType.Float, DataType.Double, DataType.DateTime)
_TEXTS: Final = (DataType.String, DataType.Text, DataType.UUID)
_OF_DATATYPE: Final[Mapping[int, str]] = {
    **dict.fromkeys(_INTEGERS, "integer"),
    **dict.fromkeys(_NUMBERS, "number"),
    **dict.fromkeys(_TEXTS, "string"),
    DataType.Boolean: "boolean",
}


def sparkplug_plant(folder: Path, broker: Broker, product: str, seconds: float) -> Made:
    """Write the plant, check it, and run what was heard through its decoder. Raises `ConfigError` rather
    than overwrite anything and where no birth was heard, `ConnectError` where the broker is not there."""
    names = SparkplugNames()
    ear = _Ear(SparkplugConfig())
    frames = listen(broker, seconds, ear.hear)
    metrics = _metrics(ear.sparkplug, names, frames)
    if not metrics:
        raise ConfigError(
            f"no birth of a Sparkplug device was heard on '{broker.filter}' within {seconds:g} s"
        )
    kinds = _kinds(metrics)
    products = product_names(_by_last_name(kinds, ear.last_names), product)
    contents = {
        folder / "products" / f"{name}.yaml": _product(name, kind, metrics)
        for name, kind in zip(products, kinds, strict=True)
    }
    contents[folder / "devices.csv"] = "device_id,productId,hub_id\n" + "".join(
        f"{_cell(device)},{name},{_cell(ear.hubs[device])}\n"
        for name, kind in zip(products, kinds, strict=True)
        for device in sorted(kind.devices)
    )
    contents[folder / "plant.yaml"] = _plant(folder, broker)
    paths = write_plant(folder, contents, frames)
    return Made(paths, [*_told(products, kinds), *decoded(folder, frames)])


class _Ear:
    """Makes frames of what the broker sends, and asks for births. hubs: device -> hub; last_names: device ->
    its own name, without those of its node and group."""

    def __init__(self, config: SparkplugConfig) -> None:
        self.sparkplug = Sparkplug(config)
        self.hubs: dict[str, str] = {}
        self.last_names: dict[str, str] = {}
        self._names = SparkplugNames()

    def hear(self, client: mqtt.Client, topic: str, payload: bytes) -> Sequence[HeardFrame]:
        """The frames of one message that can be read."""
        address = split_topic(topic)
        if address is None or address.type in COMMANDS:
            return ()
        device, hub = self._names.of(address)
        self.hubs[device], self.last_names[device] = hub, address.device or address.node
        now = time.time_ns() // 1_000_000
        found = [
            HeardFrame(Address(SOURCE, frame.topic, -1, ()), frame.payload, now)
            for frame in self.sparkplug.take(topic, payload)
            if not frame.headers
        ]
        for wanted, command in self.sparkplug.commands():
            client.publish(wanted, command)
        return found


def _metrics(
    sparkplug: Sparkplug, names: SparkplugNames, frames: Sequence[HeardFrame]
) -> dict[str, dict[str, tuple[str, Heard]]]:
    """device -> metric at the source -> its type and what it was, of the devices whose births were heard."""
    found: dict[str, dict[str, tuple[str, Heard]]] = {}
    for address, datatypes in sparkplug.births():
        mine = {
            name: (_OF_DATATYPE[datatype], Heard())
            for name, datatype in datatypes.items()
            if datatype in _OF_DATATYPE
        }
        if mine:
            found[names.of(address)[0]] = mine
    for frame in frames:
        told = split_topic(frame.address.topic)
        of = found.get(names.of(told)[0], {}) if told is not None else {}
        for value in unpack(frame.payload) if of else ():
            if value.metric in of:
                of[value.metric][1].take(value.value)
    return found


def _kinds(metrics: Mapping[str, Mapping[str, tuple[str, Heard]]]) -> list[Kind]:
    """Devices of a kind have mostly the same metrics, of the same types."""
    kinds: list[Kind] = []
    for device, mine in metrics.items():
        traits = {(name, kind) for name, (kind, _) in mine.items()}
        kind = next(
            (
                one
                for one in kinds
                if len(one.traits & traits) >= ALIKE * min(len(one.traits), len(traits))
                and len(dict([*one.traits, *traits])) == len(one.traits | traits)  # of one type everywhere
            ),
            None,
        )
        if kind is None:
            kinds.append(kind := Kind("typed", set()))
        kind.traits |= traits
        kind.devices.append(device)
    return kinds


def _by_last_name(kinds: Sequence[Kind], last: Mapping[str, str]) -> list[Kind]:
    """The kinds with their devices' own names, by which products are called."""
    return [Kind(one.shape, one.traits, [last[device] for device in one.devices]) for one in kinds]


def _product(product: str, kind: Kind, metrics: Mapping[str, Mapping[str, tuple[str, Heard]]]) -> str:
    """The text of a product file."""
    ours: dict[str, str] = {}  # metric -> its name at the source
    types = dict(sorted(kind.traits))
    for device in kind.devices:
        for name in metrics[device]:
            if name not in ours.values():
                ours[metric_name(tuple(name.split("/")), ours)] = name
    named = ", ".join(f"{yaml_text(ours_)}: {yaml_text(there)}" for ours_, there in ours.items())
    lines = [
        _HEAD.format(product=yaml_text(product), devices=counted(len(kind.devices), "device"), named=named)
    ]
    for name, there in ours.items():
        heard = [metrics[device][there][1] for device in kind.devices if there in metrics[device]]
        lines.append(f"  {yaml_text(name)}: {_metric(name, types[there], heard)}")
    return "\n".join([*lines, ""])


def _metric(name: str, kind: str, heard: Sequence[Heard]) -> str:
    if kind == "boolean":
        return "{type: boolean}"
    if kind == "string":
        shown = ", ".join(
            json.dumps(text[:40]) for text in {text: None for one in heard for text in one.texts}
        )
        return "{type: string}" + (f"   # heard: {plain(shown)}" if shown else "")
    keys = ["type: integer"] if kind == "integer" else []
    low, high = min(one.low for one in heard), max(one.high for one in heard)
    if low > high:
        return f"{{{', '.join(keys)}}}"
    keys.append("range: [{}, {}]".format(*widened(name, low, high)))
    return f"{{{', '.join(keys)}}}   # heard: {low:.6g} to {high:.6g}"


def _plant(folder: Path, broker: Broker) -> str:
    group = broker.filter.split("/")[1:2]
    groups = f"[{yaml_text(group[0])}]" if group and group[0] not in ("+", "#") else "all"
    lines = [
        plant_head(folder),
        f"  {SOURCE}:",
        "    kind: mqtt",
        f'    host: "${{MQTT_HOST:-{broker.host}}}"',
        f'    port: "${{MQTT_PORT:-{broker.port}}}"',
        *(["    tls: true"] if broker.tls else []),
        f"    sparkplug: {{groups: {groups}}}     # devices are GROUP.NODE.DEVICE, their hubs GROUP.NODE",
    ]
    if broker.username:
        lines += [f"    username: {yaml_text(broker.username)}", '    password: "${MQTT_PASSWORD:-}"']
    return "\n".join([*lines, TAIL])


def _told(names: Sequence[str], kinds: Sequence[Kind]) -> list[str]:
    lines = []
    for name, kind in zip(names, kinds, strict=True):
        shown = ", ".join(sorted(kind.devices)[:_SHOWN])
        more = f", and {len(kind.devices) - _SHOWN} more" if len(kind.devices) > _SHOWN else ""
        lines.append(
            f"{name}: {counted(len(kind.traits), 'metric')} of {counted(len(kind.devices), 'device')}"
        )
        lines.append(f"  devices: {shown}{more}")
    return [plain(line) for line in lines]


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(one in text for one in ',"\r\n') else text


_HEAD: Final = """\
# yaml-language-server: $schema=../.schema/product.json
# Made by `penstock new --from` of the births of {devices}. Names and units are yours to say.
productId: {product}
version: 1
decode:
  format: typed                # values come with names, times and qualities
  metrics: {{{named}}}

metrics:"""
