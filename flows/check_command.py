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
from flows.check_rules import rule_tables, rules_told
from flows.plant_file import Plant, Product
from flows.plant_paths import check_paths
from flows.plant_products import read_products
from flows.plant_reader import load_plant, python_beside, read_folder
from flows.plant_tests import check_tests
from flows.vectors import run_plant_vectors, run_vectors, told_problems
from operators.document import Problem, Problems, decode_text, load_yaml

WIDE = 200  # columns of what is no terminal


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--connect", is_flag=True, help="also try the addresses")
@click.option("--rules", "with_rules", is_flag=True, help="what each rule became")
@click.option("--json", "as_json", is_flag=True, help="machine-readable output")
def check(plant: Path, connect: bool, with_rules: bool, as_json: bool) -> int:
    """Validate PLANT: every problem at once, with file:line:column, the YAML path and the mend.

    PLANT is a plant folder, or one file of its products.
    """
    if plant.is_file():
        return _check_product_file(plant, as_json)
    loaded, problems = check_folder(plant)
    tried = try_addresses(loaded, plant) if connect and loaded is not None else []
    failed = [one for one in tried if not one.good]
    if as_json:
        body = {
            "ok": loaded is not None and not failed,
            "problems": [as_object(one) for one in problems.sorted()],
            "plant": counts(loaded) if loaded is not None else None,
            "rules": rules_told(loaded) if loaded is not None else [],
            "connect": [one.as_object() for one in tried],
        }
        click.echo(json.dumps(body, ensure_ascii=False))
    else:
        report(loaded, problems, with_rules=with_rules)
        for one in tried:
            click.echo(one.line())
    if loaded is None:
        return 1
    return 3 if failed else 0


def check_folder(folder: Path, *, vectors: bool = True) -> tuple[Plant | None, Problems]:
    """Read and check a folder, its tests included; with `vectors` those of its products are run."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    loaded, problems = load_plant(read_folder(folder), os.environ, name_hint=folder.resolve().name)
    if loaded is not None:
        check_tests(loaded, problems)
        check_paths(loaded, folder, problems)
        if vectors:
            told_problems(run_plant_vectors(loaded), problems)
    return (None if problems.errors else loaded), problems


def check_product(file: Path) -> tuple[list[Product], Problems]:
    """Read and check the products of one file, and run their vectors."""
    problems = Problems()
    text = decode_text(file.read_bytes(), file.name, problems)
    nodes = load_yaml(text, file.name, problems) if text is not None else []
    products = read_products({file.name: nodes}, {}, problems, python_beside(file))
    for name, product in products.good.items():
        told_problems(run_vectors(products.declared[name], product), problems)
    return list(products.good.values()), problems


def _check_product_file(file: Path, as_json: bool) -> int:
    products, problems = check_product(file)
    if as_json:
        told = [as_object(one) for one in problems.sorted()]
        click.echo(json.dumps({"ok": not problems.errors, "problems": told}, ensure_ascii=False))
        return 1 if problems.errors else 0
    found = problems.sorted()
    if found:
        click.echo(problems.render(), err=True)
    if problems.errors:
        many = len(set(problems.errors))
        click.echo(f"{many} error{'s' if many != 1 else ''}{_warnings(found)}", err=True)
        return 1
    for product in products:
        metrics, vectors = len(product.metrics), len(product.vectors)
        words = f"{metrics} metric{'s' * (metrics != 1)}, {vectors} vector{'s' * (vectors != 1)}"
        click.echo(f"ok: product {product.productId}, {product.decode.format}, {words}{_warnings(found)}")
    return 0


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
        "vectors": sum(len(product.vectors) for product in plant.products.values()),
    }


def report(plant: Plant | None, problems: Problems, *, with_rules: bool = False) -> None:
    """For people: problems on stderr, the tables on stdout."""
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
            ", ".join(window.key for window in product.windows),
            str(len([row for row in plant.master.devices.values() if row["productId"] == name])),
        )
    console.print(table)
    wide = console if console.is_terminal else Console(highlight=False, width=WIDE)
    for part in rule_tables(rules_told(plant)) if with_rules else ():
        wide.print(part)
    total = counts(plant)
    words = (
        f"{total[name]} {name if total[name] != 1 else name[:-1]}"
        for name in ("sources", "products", "metrics", "rules", "windows", "devices", "tests", "vectors")
    )
    console.print(f"ok: {', '.join(words)}{_warnings(found)}", markup=False, soft_wrap=True)


def _warnings(found: list[Problem]) -> str:
    warnings = len([one for one in found if one.warning])
    return f", {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
