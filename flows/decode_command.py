"""`penstock decode`: frames to readings, with the bytes that became each value."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from rich.console import Console

from connectors.errors import ConfigError
from flows.folder import open_plant
from flows.frame_answers import Given, answers_of
from flows.frame_view import show
from flows.plant_reader import python_beside
from flows.plant_vectors import from_hex
from operators.decode.binary_spec import parse_binary_spec
from operators.decode.binary_tree import BinarySpec
from operators.decode.explain import Answer, Frame
from operators.decode.spec import DecodeSpec, ProductDecode, parse_decode
from operators.document import Node, Problems, load_yaml, nearest
from operators.rejects import Reason

_MILLISECOND: Final = 1_000_000


class Line(NamedTuple):
    """A frame of the input, or (`problem`) what is wrong with its line."""

    payload: bytes = b""
    port: int = -1
    device_id: str = ""
    ingest_ms: int | None = None
    problem: str = ""
    header: str = ""


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--product", help="which product of the plant decodes")
@click.option("--hex", "hexadecimal", help="one frame in hexadecimal, blanks and 0x allowed")
@click.option("--port", type=int, default=-1, help="the frame's port (with --hex)")
@click.option("--device", default="", help="the device whose parameters apply (with --hex)")
@click.option("--json", "as_json", is_flag=True, help="one line of JSON for each frame")
def decode(
    plant: Path,
    file: Path | None,
    product: str | None,
    hexadecimal: str | None,
    port: int,
    device: str,
    as_json: bool,
) -> int:
    """Decode frames by a product of PLANT (a plant folder, a product file or a bare layout).

    FILE holds JSON lines {"payload_hex", "port", "device_id", "ingest_ts"}; - is standard input.
    """
    if (file is None) == (hexadecimal is None):
        raise click.UsageError("give one frame with --hex, or a FILE of frames")
    given = open_spec(plant, product)
    if hexadecimal is not None:
        payload = from_hex(hexadecimal)
        if payload is None:
            raise click.UsageError(f"--hex: '{hexadecimal}' is not hexadecimal")
        lines = [Line(payload, port, device)]
    else:
        lines = list(read_lines(file))  # type: ignore[arg-type]  # checked above
    return run_decode(given, lines, as_json, refused=hexadecimal is not None and not as_json)


def open_spec(path: Path, product: str | None) -> Given:
    """The decoder that a plant folder, a product file or a file with the value of `decode:` says."""
    if path.is_dir():
        return _of_plant(path, product)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such folder or file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    problems = Problems()
    nodes = load_yaml(text, path.name, problems)
    if not nodes:
        raise ConfigError(problems.render() or f"{path}: the file is empty")
    node = nodes[0]
    inside = node.get("decode")
    given = _of_product(node, inside, problems, path) if inside is not None else _of_layout(node, problems)
    if given is None or problems.errors:
        raise ConfigError(problems.render())
    for problem in problems.sorted():
        click.echo(problem.render(), err=True)
    return given


def _of_layout(node: Node, problems: Problems) -> Given | None:
    kind = node.get("format")
    if kind is not None and kind.value != "binary":
        problems.add(kind, "a bare spec file is a binary layout; decode other formats with a product file")
        return None
    layout = parse_binary_spec(node, None, None, problems)
    return None if layout is None else Given(layout, None, {}, {}, {})


def _of_product(node: Node, inside: Node, problems: Problems, path: Path) -> Given | None:
    metrics, params = node.get("metrics"), node.get("params")
    declared: dict[str, Any] = {}
    units, ranges, types = {}, {}, []
    for name, child in metrics.items() if metrics is not None else ():
        told, unit = child.get("type"), child.get("unit")
        declared[name] = child
        types.append((name, str(told.value) if told is not None else "number"))
        if unit is not None:
            units[name] = unit.raw
        ends = child.get("range")
        if ends is not None and ends.is_list and len(ends.value) == 2:
            low, high = ends.plain()
            ranges[name] = (_end(low), _end(high))
    values = {name: child.value for name, child in params.items()} if params is not None else {}
    kind = inside.get("format")
    if inside.get("udf") is None and (kind is None or kind.value == "binary"):
        layout = parse_binary_spec(inside, declared or None, values if params is not None else None, problems)
        if layout is None:
            return None
        return Given(layout, None, units, _numbers(values), {}, ranges)
    python = {name: data.decode("utf-8", "replace") for name, data in python_beside(path).items()}
    spec = parse_decode(inside, declared, values, problems, python)
    if spec is None:
        return None
    return Given(None, ProductDecode("", spec, tuple(types)), units, _numbers(values), {}, ranges)


def _end(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _of_plant(folder: Path, wanted: str | None) -> Given:
    plant = open_plant(folder)
    names = list(plant.products)
    if wanted is None:
        if len(names) != 1:
            raise click.UsageError(f"--product is missing; one of {', '.join(names)}")
        wanted = names[0]
    if wanted not in plant.products:
        known = nearest(wanted, names) or f"; one of {', '.join(names)}"
        raise ConfigError(f"no product '{wanted}' in {plant.name}{known}")
    product = plant.products[wanted]
    units = {name: metric.unit for name, metric in product.metrics.items() if metric.unit}
    ranges = {name: metric.range for name, metric in product.metrics.items() if metric.range is not None}
    defaults = _numbers(product.params)
    devices = {name: _row(row) for name, row in plant.master.devices.items()}
    spec: DecodeSpec = product.decode
    if isinstance(spec.layout, BinarySpec):
        return Given(spec.layout, None, units, defaults, devices, ranges)
    types = tuple((name, metric.type) for name, metric in product.metrics.items())
    return Given(None, ProductDecode(wanted, spec, types), units, defaults, devices, ranges)


def _row(row: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        try:
            found[name] = float(text)
        except ValueError:
            continue
    return found


def read_lines(file: Path) -> Iterator[Line]:
    """The frames of a file of JSON lines, blank ones left out."""
    if str(file) == "-":
        text = sys.stdin.read()
    else:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _line(line, f"{os.path.basename(file)}:{number}")


def _line(line: str, where: str) -> Line:
    try:
        told = json.loads(line)
    except ValueError as error:
        return Line(problem=f"{where}: not JSON: {error}")
    if not isinstance(told, dict):
        return Line(problem=f"{where}: an object with payload_hex is expected")
    payload = told.get("payload_hex")
    data = from_hex(payload) if isinstance(payload, str) else None
    if data is None and isinstance(told.get("payload"), str):
        data = told["payload"].encode("utf-8", "surrogatepass")
    if data is None:
        return Line(problem=f"{where}: 'payload_hex' is missing or not hexadecimal")
    port, ingest = told.get("port"), told.get("ingest_ts")
    headers = told.get("headers")
    return Line(
        data,
        port if isinstance(port, int) and not isinstance(port, bool) else -1,
        str(told.get("device_id") or ""),
        int(ingest) if isinstance(ingest, int | float) and not isinstance(ingest, bool) else None,
        header=str(headers.get("csv") or "") if isinstance(headers, dict) else "",
    )


def run_decode(given: Given, lines: Sequence[Line], as_json: bool, *, refused: bool = False) -> int:
    """Print what each frame gives; 1 if a line of the input is none, else 0: a reject is an answer.
    refused: 1 for a reject too, as a person or a script asks of one frame."""
    good = [line for line in lines if not line.problem]
    frames = [
        Frame(
            line.payload,
            line.port,
            None if line.ingest_ms is None else line.ingest_ms * _MILLISECOND,
            {**given.params, **given.device_params.get(line.device_id, {})},
        )
        for line in good
    ]
    answers = iter(answers_of(given, frames, [line.header for line in good], point=not as_json))
    console = Console(highlight=False)
    wrong = any(line.problem for line in lines)
    for line in lines:
        if line.problem:
            answer = Answer(reject=(Reason.malformed.name, None, line.problem))
        else:
            answer = next(answers)
            wrong |= refused and answer.reject is not None
        if as_json:
            click.echo(json.dumps(answer.as_object(), ensure_ascii=False, allow_nan=False))
        else:
            show(console, line.payload, line.port, answer, given)
    return int(wrong)
