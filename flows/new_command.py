"""`penstock new`: a commented starter plant that passes `check`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from connectors.errors import ConfigError
from flows.heard_plant import DEFAULT_PRODUCT, new_from
from flows.plant_vectors import from_hex
from flows.scaffold import Sample, scaffold
from flows.scaffold_rules import TEMPLATES, template_files
from flows.schema_command import write_schemas
from operators.document import scalar

SCHEMAS: Final = ".schema"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")

PLANT: Final = """\
# yaml-language-server: $schema=.schema/plant.json
# What this plant is called, where its frames come from, and where its results go.
# Check it with `penstock check .`, run it with `penstock run .`
plant: {plant}
timezone: UTC

sources:
  # An MQTT broker. ${{NAME:-default}} reads the environment, ${{file:/run/secrets/x}} a file.
  line1:
    kind: mqtt
    host: "${{MQTT_HOST:-127.0.0.1}}"
    port: "${{MQTT_PORT:-1883}}"
    subscribe: ["iotlink/+/+/+/+/pub/+/+"]
    # username: penstock
    # password: "${{file:/run/secrets/mqtt}}"
    # topic: "devices/{{hub_id}}/{{device_id}}/{{role}}"     # when your topics look different

  # Devices that connect by themselves and send frames behind a two-byte length:
  # legacy:
  #   kind: tcp
  #   listen: "127.0.0.1:7001"
  #   framing: {{kind: length_prefix, size: 2}}
  #   device: peer            # the name of a device in devices.csv is its address
  #   product: {product}

  # Files that are put into a folder, read once each:
  # drops: {{kind: files, watch: inbox/, pattern: "*.csv", product: {product}}}

# devices: {{source: file, unknown: reject}}      # or accept: take devices that devices.csv has not
# journal: {{max: 20GB}}                          # input is kept on disk up to here

# Alarms go to alarms.jsonl and the historian; to Kafka as well when it has an address:
# sinks:
#   alarms: {{kind: kafka, bootstrap: "${{KAFKA:-}}"}}

historian:
  url: "${{CLICKHOUSE_URL:-embedded}}"             # or the address of a ClickHouse server
  listen: "127.0.0.1:8123"
  keep: {{raw: 10d, windows: 400d}}
server: {{listen: "127.0.0.1:8080"}}
"""

PRODUCT: Final = """\
# yaml-language-server: $schema=../.schema/product.json
# One kind of device: how its bytes become readings, and what a good reading is.
productId: {product}
version: 1
topics: ["iotlink/+/+/+/+/pub/telemetry/json"]   # which frames; devices.csv decides between products

# {{"device_timestamp": 1772355600000, "data": {{"metrics": {{"tempC": 71.5, "rpm": 1480, "mode": "run"}}}}}}
decode:
  format: json                     # json | csv | binary
  timestamp: device_timestamp      # a number is milliseconds since 1970, a text is ISO 8601
  metrics: data.metrics            # every member of this object; or {{tempC: data.t[0].v}}

expected_every: 10s                # after three times this a missing value is unknown to the rules
live_within: 15m                   # an older reading raises no alarm

metrics:
  tempC: {{unit: Cel, range: [-40, 150], required: true}}      # units are UCUM
  rpm:   {{unit: "{{rev}}/min", range: [0, 6000], max_step: 2000}}
  mode:  {{type: string, values: [idle, run, fault]}}

params: {{tempHigh: 80}}             # a column tempHigh of devices.csv overrides it by device

contract:
  timestamp: {{max_future: 5m, max_age: 30d, on_breach: reject}}
  on_unknown_metric: count         # or reject

windows:
  - {{every: 1m, lateness: 10s, aggregates: [count, min, max, mean, last, p95]}}

# What the Asset Administration Shell shows of each device:
aas:
  asset: "https://example.com/assets/{{device_id}}"
  submodels:
    - id: "https://example.com/sm/{{device_id}}/operational"
      idShort: OperationalData
      elements:
        - {{path: Temperature, value: tempC}}
        - {{path: Temperature1m.Mean, value: "window.`1m`.mean(tempC)"}}
        - {{path: Alarms.OverTemperature, value: "alarm.`temp-high`.active"}}
"""

RULES: Final = """\
# yaml-language-server: $schema=../.schema/rule.json
# Several rules a file, with '---' between them.
ruleId: temp-high
productId: {product}
type: threshold
condition: "tempC > param.tempHigh"
clear_condition: "tempC < param.tempHigh - 5"    # without it: not condition
on_delay: 10s                                    # the condition must hold for so long
severity: high                                   # critical | high | medium | low | info
message: "{{device_id}}: {{tempC:.1f}} Cel, above {{param.tempHigh}}"
---
ruleId: reports-fault
productId: {product}
type: threshold
condition: "mode == 'fault'"
severity: info                                   # an event; nobody has to acknowledge it
"""

DEVICES: Final = """\
device_id,productId,hub_id,site_id,name,status,tempHigh
device-01,{product},hub-a,site-1,First device,in_service,
device-02,{product},hub-a,site-1,Second device,in_service,90
"""

TESTS: Final = """\
# yaml-language-server: $schema=../.schema/test.json
# `penstock test .` runs this through the live engine, without a network.
name: a device that is too hot for over ten seconds raises once and clears once
readings:
  - {{at: "2026-03-01T09:00:00Z", device: device-01, metrics: {{tempC: 85}}}}
  - {{at: +11s, device: device-01, metrics: {{tempC: 86}}}}
  - {{at: +60s, device: device-01, metrics: {{tempC: 70}}}}
expect:
  alarms:
    - {{ruleId: temp-high, device_id: device-01, transition: raised, at: +10s}}
    - {{ruleId: temp-high, transition: cleared, at: +60s}}
  rejects: 0
"""

FILES: Final = {
    "plant.yaml": PLANT,
    "products/{product}.yaml": PRODUCT,
    "rules/{product}.yaml": RULES,
    "devices.csv": DEVICES,
    "tests/{product}.yaml": TESTS,
}


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)
@click.option(
    "--product", default=DEFAULT_PRODUCT, show_default=True, help="the productId of its first product"
)
@click.option(
    "--from",
    "source",
    help="what to learn from: a capture, mqtt://HOST:PORT/FILTER, kafka://HOST:PORT/TOPIC, "
    "tcp://HOST:PORT or opc.tcp://HOST:PORT",
)
@click.option(
    "--for",
    "listening",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="with --from an address: seconds to listen",
)
@click.option("--from-frame", "frame", help="a sample frame to make the product of: HEX, JSON text or a file")
@click.option(
    "--rule",
    "templates",
    multiple=True,
    type=click.Choice(list(TEMPLATES)),
    help="a rule to start from, with its test; may be given several times",
)
@click.option("--port", type=int, default=-1, help="the sample frame's port")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout: the files, what was told")
def new(
    folder: Path | None,
    product: str,
    source: str | None,
    listening: float,
    frame: str | None,
    templates: tuple[str, ...],
    port: int,
    as_json: bool,
) -> None:
    """Write a commented starter plant into FOLDER.

    With --rule, with that rule too; if FOLDER is a plant already, only the rule and its test are added,
    for --product:

    \b
    {templates}

    With --from, write a plant made of what is heard: its devices, a product for each kind of them with
    types and ranges, and the source. Then say how much of it the plant decodes.

    With --from-frame, write a product made of a sample frame: into FOLDER/products if FOLDER is a plant
    already, else into a new plant; without FOLDER as a file NAME.yaml here.

    \b
    penstock new plant
    penstock new plant --from mqtt://broker:1883/hall/# --for 60
    penstock new plant --product probe --from-frame "01 FF CC 83"
    """
    told: list[str] = []
    if source is not None and (folder is None or frame is not None or templates):
        raise click.UsageError("--from makes a whole plant: penstock new FOLDER --from SOURCE")
    if templates and (folder is None or frame is not None):
        raise click.UsageError("--rule goes into a plant: penstock new FOLDER --rule NAME")
    if frame is None and folder is None:
        raise click.UsageError("say the folder to write: penstock new FOLDER")
    if source is not None and folder is not None:
        _refuse_name(product)
        made = new_from(folder, source, product, listening)
        told = made.told
        paths, checked = made.paths, folder
    elif frame is not None:
        paths, checked = write_product(folder, product, frame, port)
    elif folder is not None:
        paths, checked = write_starter(folder, product, templates), folder
    if as_json:
        files = [str(path) for path in paths]
        click.echo(json.dumps({"files": files, "told": told, "check": str(checked)}, ensure_ascii=False))
    for line in () if as_json else told:
        click.echo(line)
    for path in paths:
        click.echo(f"wrote {path}", err=True)
    click.echo(f"next: penstock check {checked}", err=True)


def write_product(folder: Path | None, product: str, frame: str, port: int = -1) -> tuple[list[Path], Path]:
    """Write a product made of a sample frame; returns what was written and what to check next.

    Raises `ConfigError` rather than overwrite anything, and for samples of which nothing can be made.
    """
    _refuse_name(product)
    text = scaffold(product, read_sample(frame, port))
    if folder is None:
        path = Path(f"{product}.yaml")
        if path.exists():
            raise ConfigError(f"{path} exists already; choose another --product")
        path.write_text(text.partition("\n")[2], encoding="utf-8")  # its schema lies in no folder here
        return [path], path
    contents = {folder / "products" / f"{product}.yaml": text}
    if not (folder / "plant.yaml").exists():
        named = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "plant"
        values = {"plant": _yaml_text(named[:64]), "product": _yaml_text(product)}
        contents[folder / "plant.yaml"] = PLANT.format(**values)
        contents[folder / "devices.csv"] = f"device_id,productId,name\ndevice-01,{product},First device\n"
    for path in contents:
        if path.exists():
            raise ConfigError(f"{path} exists already; choose another --product")
    for path, body in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
    schemas = [] if (folder / SCHEMAS).exists() else write_schemas(folder / SCHEMAS)
    return [*contents, *schemas], folder


def read_sample(frame: str, port: int = -1) -> Sample:
    """A sample frame: hexadecimal digits, a text of JSON, or a file with one of these, with CSV, with
    recorded input (its first frame), or with the bytes themselves."""
    if (data := from_hex(frame)) is not None and data:
        return Sample(data, port=port)
    if frame.lstrip()[:1] in ("{", "["):
        return Sample(frame.encode("utf-8", "surrogatepass"), port=port)
    path = Path(frame)
    if not path.is_file():
        raise ConfigError(f"--from-frame: '{frame}' is neither hexadecimal nor a file")
    return sample_of(path.read_bytes(), port)


def sample_of(data: bytes, port: int = -1) -> Sample:
    """The sample frame in a file's content."""
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return Sample(data, port=port)
    if not text or not all(one.isprintable() or one in "\r\n\t" for one in text):
        return Sample(data, port=port)
    lines = text.splitlines()
    if "," not in text and (plain := from_hex(text)) is not None and plain:
        return Sample(plain, port=port)
    if text[:1] in ("{", "["):
        recorded = _recorded(lines[0], port)
        return recorded if recorded is not None else Sample(text.encode("utf-8"), port=port)
    if len(lines) > 1:
        return Sample(lines[1].encode("utf-8"), header=lines[0], port=port)
    return Sample(text.encode("utf-8"), port=port)


def _recorded(line: str, port: int) -> Sample | None:
    """The frame of a line of recorded input; None where it is something else."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not ({"payload", "payload_hex"} & set(told)):
        return None
    given = told.get("port")
    port = given if isinstance(given, int) and not isinstance(given, bool) and port < 0 else port
    headers = told.get("headers")
    header = str(headers.get("csv") or "") if isinstance(headers, dict) else ""
    if isinstance(told.get("payload_hex"), str):
        data = from_hex(told["payload_hex"])
        return None if data is None else Sample(data, header, port)
    if isinstance(told.get("payload"), str):
        return Sample(told["payload"].encode("utf-8", "surrogatepass"), header, port)
    return None


new.help = (new.help or "").format(
    templates="\n    ".join(f"{name:18s}{what}" for name, what in TEMPLATES.items())
)


def write_starter(folder: Path, product: str, templates: Sequence[str] = ()) -> list[Path]:
    """Write the starter plant and some rules of `scaffold_rules.TEMPLATES`; into a plant that is there
    the rules alone. Raises `ConfigError` rather than overwrite anything."""
    _refuse_name(product)
    added = template_files(folder, templates, product)
    if templates and (folder / "plant.yaml").exists():
        for path, text in added.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return list(added)
    named = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "plant"
    names = {"plant": named, "product": product}
    values = {"plant": _yaml_text(named[:64]), "product": _yaml_text(product)}
    contents = {
        folder / name.format(product=product): text.format(**values if name != "devices.csv" else names)
        for name, text in FILES.items()
    }
    for path in contents:
        if path.exists():
            raise ConfigError(f"{path} exists already; choose another folder")
    contents |= added
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [*contents, *write_schemas(folder / SCHEMAS)]


def _refuse_name(product: str) -> None:
    if not _NAME.match(product):
        raise ConfigError(f"--product: '{product}' is no name of a file; use letters, digits, '-' and '_'")


def _yaml_text(text: str) -> str:
    """A name as YAML writes it: in quotes where it would be a number or a boolean."""
    return text if isinstance(scalar(text), str) else f'"{text}"'
