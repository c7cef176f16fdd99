"""`penstock new --from`: a plant made of what was heard, that passes `check` and decodes it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.errors import ConfigError
from flows.check_command import check_folder
from flows.engine import run_recording
from flows.heard import HeardFrame, counted, recorded_frames, write_frames
from flows.heard_kafka import Topics, listen_kafka, topics_at
from flows.heard_kinds import PACKED, Kind, body_of, heard_kinds, most_sent
from flows.heard_mqtt import Broker, broker_of, listen
from flows.heard_names import device_stem
from flows.heard_product import product_files
from flows.heard_sources import HeardSource, of_sources, taken
from flows.heard_tcp import framed, listen_tcp, tcp_address
from flows.heard_topics import heard_sources, without_told_once
from flows.recorded import recorded_slices
from flows.scaffold import yaml_text
from flows.schema_command import write_schemas
from operators.sparkplug import NAMESPACE

DEFAULT_PRODUCT: Final = "device-v1"
HEARD: Final = "heard.jsonl"
_SHOWN: Final = 20


class Made(NamedTuple):
    """paths: the files that were written; told: what was heard and what came of it, lines for a person."""

    paths: list[Path]
    told: list[str]


class Listener(NamedTuple):
    """Where devices connect to, and the framing that fits them, as plant.yaml has them."""

    address: str
    framing: str


Live = Broker | Topics | Listener | None  # what was listened to; None: a recording was read


def new_from(folder: Path, source: str, product: str, seconds: float) -> Made:
    """Write a plant into `folder` from recorded input or from what a broker sends within `seconds`.

    Raises `ConfigError` rather than overwrite anything, and where nothing was heard.
    """
    if (folder / "plant.yaml").exists():
        raise ConfigError(f"{folder / 'plant.yaml'} exists already; choose another folder")
    if source.startswith("opc.tcp://"):
        from flows.heard_opcua_plant import opcua_plant  # asyncua takes a second to load

        return opcua_plant(folder, source, product, seconds)
    broker, address, topics, framing = broker_of(source), tcp_address(source), topics_at(source), ""
    if address is not None:
        reads = listen_tcp(address, seconds)
        if not reads:
            raise ConfigError(f"{source}: nothing was heard within {seconds:g} s")
        framing, frames = framed(reads)
    elif broker is not None and broker.filter.partition("/")[0] == NAMESPACE:
        from flows.heard_sparkplug import sparkplug_plant  # it is made of what this module has

        return sparkplug_plant(folder, broker, product, seconds)
    elif broker is not None:
        frames = listen(broker, seconds)
        if not frames:
            where = f"{broker.host}:{broker.port}"  # not the address as it was given: a password may be in it
            raise ConfigError(f"{where}: nothing was heard on '{broker.filter}' within {seconds:g} s")
    elif topics is not None:
        frames = listen_kafka(topics, seconds)
        if not frames:
            named = ", ".join(topics.topics)
            raise ConfigError(f"{topics.bootstrap}: nothing is in {named}, and nothing came in {seconds:g} s")
    elif "://" in source:
        raise ConfigError(
            f"--from: '{source}': mqtt://HOST:PORT/FILTER, kafka://HOST:PORT/TOPIC, tcp://HOST:PORT, "
            "opc.tcp://HOST:PORT or a file is expected"
        )
    elif not Path(source).is_file():
        raise ConfigError(
            f"--from: '{source}' is neither an address, mqtt://HOST:PORT/FILTER, kafka://HOST:PORT/TOPIC, "
            "tcp://HOST:PORT or opc.tcp://HOST:PORT, nor a file"
        )
    else:
        frames = recorded_frames(Path(source))
    others, hint = _without_sparkplug(frames, broker)
    listener = None if address is None else Listener(address, framing)
    made = make_plant(folder, others, product, broker or topics or listener)
    return made._replace(told=[*made.told, *hint])


def _without_sparkplug(
    frames: Sequence[HeardFrame], broker: Broker | None
) -> tuple[Sequence[HeardFrame], list[str]]:
    """The frames of other topics, and how to learn of Sparkplug's, whose values are named by births."""
    others = [frame for frame in frames if not frame.address.topic.startswith(f"{NAMESPACE}/")]
    if broker is None or len(others) == len(frames):
        return frames, []
    where = f"penstock new DIR --from mqtt{'s' * broker.tls}://{broker.host}:{broker.port}/{NAMESPACE}/#"
    if not others:
        raise ConfigError(f"nothing but Sparkplug was heard; for it: {where}")
    return others, [f"{counted(len(frames) - len(others), 'frame')} of Sparkplug left out; for it: {where}"]


def make_plant(
    folder: Path,
    frames: Sequence[HeardFrame],
    product: str = DEFAULT_PRODUCT,
    live: Live = None,
) -> Made:
    """Write the plant, check it, and run the frames through its decoder."""
    frames, once = without_told_once(frames)
    sources = live.sources(frames) if isinstance(live, Topics) else heard_sources(frames)
    heard = taken(frames, sources)
    kinds = _kinds(heard, sources)
    if not kinds:
        raise ConfigError(f"{len(frames)} frames were heard, and none is telemetry of a device")
    names, products, kinds, empty = _products(kinds, product)
    own = {kind.source: name for name, kind in zip(names, kinds, strict=True) if kind.source}
    sources = [source for source in sources if not source.label or source.name in own]
    contents = {folder / path: text for files in products for path, text in files.items()}
    contents[folder / "devices.csv"] = devices_text(names, kinds)
    contents[folder / "plant.yaml"] = _plant(folder, sources, own, live)
    renamed = any(source.name != source.origin for source in sources)
    paths = write_plant(folder, contents, heard if live is not None or renamed else ())
    told = [
        *_told(names, kinds),
        *map(plain, [*empty, *once, *_hints(frames, heard, sources), *_shared(kinds)]),
    ]
    functions = [path.relative_to(folder).as_posix() for path in contents if path.suffix == ".py"]
    told += [f"{path} decodes what no layout can say; look at it" for path in functions]
    return Made(paths, [*told, *decoded(folder, heard)])


def _kinds(frames: Sequence[HeardFrame], sources: Sequence[HeardSource]) -> list[Kind]:
    """The kinds of devices; a source with a label has one of its own, for what else its devices send."""
    whole = [source for source in sources if not source.label]
    kinds = heard_kinds(of_sources(frames, whole))
    for source in sources:
        sent = list(of_sources(frames, [source])) if source.label else []
        sent = [(device, frame) for device, frame in sent if frame.payload]
        if sent:
            most = most_sent(list({id(frame): frame for _, frame in sent}.values()))
            devices = list(dict.fromkeys(device for device, _ in sent))
            kinds.append(
                Kind(most.shape, most.traits, devices, most.frames, source.name, source.label, most.others)
            )
    return kinds


def _hints(
    frames: Sequence[HeardFrame], heard: Sequence[HeardFrame], sources: Sequence[HeardSource]
) -> list[str]:
    """What a person should know of what was guessed."""
    lines = []
    if len(heard) < len(frames):
        kept = {frame.address.topic for frame in heard}
        left = next(frame.address.topic for frame in frames if frame.address.topic not in kept)
        told = counted(len(frames) - len(heard), "frame")
        lines.append(
            f"{told} left out, always empty or under topics that no filter can tell from others, e.g. "
            f"'{left[:100]}'"
        )
    if retained := sum(frame.retained for frame in heard):
        told = counted(retained, "frame")
        lines.append(f"{told} retained by the broker from before; a plant that runs filters those")
    lines += [
        f"sources.{source.name} takes {len(source.filters)} kinds of topics into one product, for want of "
        "sources: give those that matter a source and a product each"
        for source in sources
        if source.mixed
    ]
    return lines


def _shared(kinds: Sequence[Kind]) -> list[str]:
    """What becomes of devices that are of several kinds."""
    counts = Counter(device for kind in kinds for device in kind.devices)
    several = sorted(device for device, count in counts.items() if count > 1)
    if not several:
        return []
    return [
        f"{counted(len(several), 'device')} of several products, e.g. '{several[0]}': each with its metrics, "
        "rules and windows, and all of them in `penstock state`"
    ]


def write_plant(folder: Path, contents: Mapping[Path, str], frames: Sequence[HeardFrame]) -> list[Path]:
    """Write a plant's files, its schemas, and what was heard, if anything. Raises `ConfigError` rather than
    overwrite anything."""
    for path in contents:
        if path.exists():
            raise ConfigError(f"{path} exists already; choose another folder")
    for path, body in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
    paths = [*contents, *write_schemas(folder / ".schema")]
    if frames:
        write_frames(folder / HEARD, frames)
        paths.append(folder / HEARD)
    return paths


def _products(
    kinds: Sequence[Kind], product: str
) -> tuple[list[str], list[dict[str, str]], list[Kind], list[str]]:
    """The name and the files of each kind's product; the kinds that have one; why others have none."""
    good, files, empty = list[Kind](), list[dict[str, str]](), list[str]()
    for kind, name in zip(kinds, product_names(kinds, product), strict=True):
        try:
            files.append(product_files(name, kind))
        except ConfigError as error:
            empty.append(str(error))
        else:
            good.append(kind)
    if not good:
        raise ConfigError(empty[0])
    if not empty:
        return product_names(kinds, product), files, good, empty
    names = product_names(good, product)  # without the others
    return names, [product_files(name, kind) for name, kind in zip(names, good, strict=True)], good, empty


def product_names(kinds: Sequence[Kind], product: str) -> list[str]:
    """Names of products: the one asked for, for a single kind; else what the names of its devices begin
    with."""
    if product != DEFAULT_PRODUCT and len(kinds) == 1:
        return [product]
    names: list[str] = []
    for kind in kinds:
        stem = kind.label or device_stem(kind.devices)
        free = (f"{stem}{n}-v1" for n in ("", *range(2, len(kinds) + 2)))
        names.append(next(name for name in free if name.lower() not in {one.lower() for one in names}))
    return names


def devices_text(names: Sequence[str], kinds: Sequence[Kind]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["device_id", "productId", "name"])
    seen: set[str] = set()  # what else a device sends is the product of that source
    for name, kind in zip(names, kinds, strict=True):
        rows.writerows([device, name, ""] for device in sorted(kind.devices) if device not in seen)
        seen.update(kind.devices)
    return text.getvalue()


def _plant(folder: Path, sources: Sequence[HeardSource], own: Mapping[str, str], live: Live) -> str:
    """own: source -> product, of those that have one of their own."""
    lines = [plant_head(folder)]
    if len(sources) == 1 and isinstance(live, Broker) and live.filter != "#":
        sources[0].filters = [live.filter]  # more than was heard, as it was asked for
    for source in sources:
        lines += [f"  {yaml_text(source.name)}:", *_source(source, live)]
        if source.label:
            told = "   # for want of sources: several meanings in one product" if source.mixed else ""
            lines.append(f"    product: {yaml_text(own[source.name])}{told}")
    return "\n".join([*lines, TAIL])


def plant_head(folder: Path) -> str:
    """plant.yaml up to its sources."""
    named = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "plant"
    return HEAD.format(plant=yaml_text(named[:64]))


def _source(source: HeardSource, live: Live) -> list[str]:
    if isinstance(live, Topics):
        return live.lines(source)
    if source.kind == "files":
        return [
            "    kind: files",
            "    watch: inbox/                  # a file put here is read once; its name is its device's",
            '    pattern: "*.csv"',
        ]
    if isinstance(live, Listener):
        return [
            "    kind: tcp",
            f"    listen: {yaml_text(live.address)}",
            f"    framing: {live.framing}   # the first that fits what was heard",
            _tcp_device(source),
        ]
    if source.kind == "tcp":
        return [
            "    kind: tcp",
            '    listen: "127.0.0.1:7001"       # TODO: a recording does not tell the address',
            "    framing: {kind: length_prefix, size: 2}   # TODO: nor how frames are told apart",
            _tcp_device(source),
        ]
    broker = live
    host, port = (broker.host, broker.port) if broker is not None else ("127.0.0.1", 1883)
    lines = [
        "    kind: mqtt",
        f'    host: "${{MQTT_HOST:-{host}}}"',
        f'    port: "${{MQTT_PORT:-{port}}}"',
        f"    subscribe: [{', '.join(map(yaml_text, source.filters))}]",
    ]
    if broker is not None and broker.username:
        lines += [f"    username: {yaml_text(broker.username)}", '    password: "${MQTT_PASSWORD:-}"']
    if broker is not None and broker.tls:
        lines.append("    tls: true")
        if "SSL_CERT_FILE" in os.environ:
            lines.append(f"    ca_file: {yaml_text(os.path.abspath(os.environ['SSL_CERT_FILE']))}")
    if source.template:
        lines.append(f"    topic: {yaml_text(source.template)}")
    if source.device:
        lines.append(f"    device: {yaml_text(source.device)}")
    return lines


def _tcp_device(source: HeardSource) -> str:
    if source.device == "peer":
        return "    device: peer                   # a device is called as its address"
    return f"    device: {yaml_text(source.device)}"


def _told(names: Sequence[str], kinds: Sequence[Kind]) -> list[str]:
    lines = []
    for name, kind in zip(names, kinds, strict=True):
        shown = ", ".join(sorted(kind.devices)[:_SHOWN])
        more = f", and {len(kind.devices) - _SHOWN} more" if len(kind.devices) > _SHOWN else ""
        lines.append(f"{name}: {kind.shape}, {_of(kind)}")
        lines.append(f"  devices: {shown}{more}")
        lines.append(f"  {_shape(kind)}")
    return [plain(line) for line in lines]


def plain(text: str) -> str:
    """A text from the network as a terminal may show it."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def _of(kind: Kind) -> str:
    return f"{counted(len(kind.frames), 'frame')} of {counted(len(kind.devices), 'device')}"


def _shape(kind: Kind) -> str:
    if kind.shape == "binary":
        lengths = Counter(len(frame.payload) for frame in kind.frames)
        told = [f"{size} bytes {count}x" for size, count in sorted(lengths.items())]
        return "lengths: " + ", ".join(told[:_SHOWN]) + ", ..." * (len(told) > _SHOWN)
    if kind.shape in PACKED:
        body = json.dumps(body_of(kind.frames[0].payload, kind.shape), ensure_ascii=False)
        return f"a payload, as JSON: {body[:240]}"
    if kind.shape == "csv":
        return f"a row: {kind.frames[0].payload.decode()[:120].strip()}"
    return f"a payload: {kind.frames[0].payload.decode()[:240].strip()}"


def decoded(folder: Path, frames: Sequence[HeardFrame]) -> list[str]:
    """What the engine makes of the frames under the new plant; raises `ConfigError` where that fails
    `check`."""
    plant, problems = check_folder(folder)
    if plant is None:
        raise ConfigError(f"what was heard makes no plant that passes check:\n{problems.render()}")
    with tempfile.TemporaryDirectory() as kept:
        recording = Path(kept) / HEARD
        write_frames(recording, frames)
        outcome = run_recording(plant, recorded_slices(plant, [recording]))
    told: dict[str, Any] = outcome.summary["frames"]
    share = 100 * told["decoded"] / len(frames)
    shown = "100" if told["decoded"] == len(frames) else f"{min(share, 99.9):.1f}"
    rest = [f"{told[key]} {key}" for key in ("rejected", "filtered", "held") if told.get(key)]
    lines = [
        f"decoded: {told['decoded']} of {len(frames)} frames ({shown} %)" + "".join(f", {r}" for r in rest)
    ]
    reasons = Counter((reject["reason"], reject["message"]) for reject in outcome.rejects)
    lines += [f"  {count}x {reason}: {plain(text)}" for (reason, text), count in reasons.most_common(5)]
    return lines


HEAD: Final = """\
# yaml-language-server: $schema=.schema/plant.json
# Made by `penstock new --from` of what was heard. Check it with `penstock check .`,
# run it with `penstock run .`
plant: {plant}
timezone: UTC

sources:"""
TAIL: Final = """
devices: {source: file, unknown: reject}           # or accept: take devices that devices.csv has not

historian:
  url: "${CLICKHOUSE_URL:-embedded}"               # or the address of a ClickHouse server
  listen: "127.0.0.1:8123"
  keep: {raw: 10d, windows: 400d}
server: {listen: "127.0.0.1:8080"}
"""
