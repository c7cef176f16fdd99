"""`penstock schema`: JSON Schemas of the plant folder, from the types that read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from flows.plant_file import Action, PlantYaml, Product
from flows.plant_later import LATER
from flows.plant_tests import Case
from operators.decode.language import definitions
from operators.expression.formula_spec import Formula
from rules.spec import AnyRule

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
FILES: Final[dict[str, tuple[Any, str]]] = {
    "plant": (PlantYaml, "plant.yaml of a Penstock plant"),
    "product": (Product, "products/*.yaml of a Penstock plant"),
    "rule": (AnyRule, "rules/*.yaml of a Penstock plant, one document"),
    "action": (Action, "actions/*.yaml of a Penstock plant, one document"),
    "formula": (Formula, "formulas/*.yaml of a Penstock plant, one document"),
    "test": (Case, "tests/*.yaml of a Penstock plant, one document"),
}
_REFERENCE: Final = {"type": "string", "pattern": r"\$\{[^}]+\}", "description": "from the environment"}


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="write one file each here")
def schema(output: Path | None) -> None:
    """JSON Schemas of plant.yaml, products, rules and tests."""
    if output is None:
        click.echo(json.dumps({name: schema_of(name) for name in FILES}, indent=2))
        return
    for path in write_schemas(output):
        click.echo(f"wrote {path}", err=True)


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema as NAME.json; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in FILES:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(schema_of(name), indent=2) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def schema_of(name: str) -> dict[str, Any]:
    """The schema of one kind of file. It takes what `check` takes and no unknown key; what only
    `check` can know (names, ranges, expressions) is left to it."""
    kind, title = FILES[name]
    (root,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    parts = {part: _texts(_part(part, body)) for part, body in parts.items()}
    if "DecodeSpec" in parts:
        parts |= definitions()
    if name == "plant":
        parts = {part: _with_references(body) for part, body in parts.items()}
    # a union of types has no name of its own: its root is the choice between them
    head = parts.pop(kind.__name__) if isinstance(kind, type) else _texts(root)
    return {"$schema": DRAFT, **head, "title": title, "$defs": parts}


def _part(name: str, body: dict[str, Any]) -> dict[str, Any]:
    properties = body.get("properties", {})
    for struct, hidden in LATER.hidden.items():
        if struct.__name__ == name:
            for key in hidden:
                properties.pop(key, None)
    for (struct, key), values in LATER.harmless.items():
        if struct.__name__ == name:
            properties[key] = {"enum": list(values)}
    for value in properties.values():
        value.pop("default", None)  # of durations and sizes it would be a bare number
    return body


def _texts(body: Any) -> Any:
    """Durations and sizes are written as texts with a unit, whatever they become."""
    if isinstance(body, dict):
        plain = {key: _texts(below) for key, below in body.items()}
        if body.get("type") == "integer" and "pattern" in body:
            plain["type"] = "string"
        return plain
    return [_texts(below) for below in body] if isinstance(body, list) else body


def _with_references(body: Any) -> Any:
    """A number, a duration or a size of plant.yaml may stand in the environment."""
    if isinstance(body, dict):
        plain = {key: _with_references(below) for key, below in body.items()}
        if body.get("type") in ("integer", "number", "boolean") or ("pattern" in body and "type" in body):
            return {"anyOf": [plain, _REFERENCE]}
        return plain
    return [_with_references(below) for below in body] if isinstance(body, list) else body
