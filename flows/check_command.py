"""`penstock check`: everything that is wrong with a plant folder, at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from connectors.errors import ConfigError
from flows.check_connect import try_addresses
from flows.plant_file import Plant
from flows.plant_reader import load_plant, read_folder
from flows.plant_tests import check_tests
from operators.document import Problem, Problems


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--connect", is_flag=True, help="also try the addresses")
@click.option("--json", "as_json", is_flag=True, help="machine-readable output")
def check(plant: Path, connect: bool, as_json: bool) -> int:
    """Validate PLANT: every problem at once, with file:line:column, the YAML path and the mend."""
    loaded, problems = check_folder(plant)
    tried = try_addresses(loaded) if connect and loaded is not None else []
    failed = [one for one in tried if not one.good]
    if as_json:
        body = {
            "ok": loaded is not None and not failed,
            "problems": [as_object(one) for one in problems.sorted()],
            "plant": counts(loaded) if loaded is not None else None,
            "connect": [one.as_object() for one in tried],
        }
        click.echo(json.dumps(body, ensure_ascii=False))
    else:
        report(loaded, problems)
        for one in tried:
            click.echo(one.line())
    if loaded is None:
        return 1
    return 3 if failed else 0


def check_folder(folder: Path) -> tuple[Plant | None, Problems]:
    """Read and check a folder, its tests included."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    loaded, problems = load_plant(read_folder(folder), os.environ, name_hint=folder.resolve().name)
    if loaded is not None:
        check_tests(loaded, problems)
    return (None if problems.errors else loaded), problems


def as_object(problem: Problem) -> dict[str, Any]:
    """A problem as `--json` prints it."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "text": problem.text,
        "severity": "warning" if problem.warning else "error",
    }


def counts(plant: Plant) -> dict[str, Any]:
    """What a plant consists of."""
    return {
        "name": plant.name,
        "sha256": plant.sha256,
        "sources": len(plant.sources),
        "products": len(plant.products),
        "metrics": sum(len(product.metrics) for product in plant.products.values()),
        "rules": len(plant.rules),
        "windows": sum(len(product.windows) for product in plant.products.values()),
        "devices": len(plant.master.devices),
        "tests": sum(len(nodes) for nodes in plant.tests.values()),
    }


def report(plant: Plant | None, problems: Problems) -> None:
    """For people: problems on stderr, the table on stdout."""
    found = problems.sorted()
    if found:
        click.echo(problems.render(), err=True)
    errors = len([one for one in found if not one.warning])
    if plant is None:
        click.echo(f"{errors} error{'s' if errors != 1 else ''}{_warnings(found)}", err=True)
        return
    console = Console(highlight=False)
    console.print(f"plant {plant.name}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("product", "format", "metrics", "rules", "windows", "devices"):
        table.add_column(name, justify="left" if name in ("product", "format") else "right")
    for name, product in plant.products.items():
        table.add_row(
            name,
            product.decode.format,
            str(len(product.metrics)),
            str(len([rule for rule in plant.rules if name in rule.products])),
            ", ".join(window.every for window in product.windows),
            str(len([row for row in plant.master.devices.values() if row["productId"] == name])),
        )
    console.print(table)
    total = counts(plant)
    words = (
        f"{total[name]} {name if total[name] != 1 else name[:-1]}"
        for name in ("sources", "products", "metrics", "rules", "windows", "devices", "tests")
    )
    console.print(f"ok: {', '.join(words)}{_warnings(found)}", markup=False, soft_wrap=True)


def _warnings(found: list[Problem]) -> str:
    warnings = len([one for one in found if one.warning])
    return f", {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
