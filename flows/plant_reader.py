"""Reading a plant folder: every file, every check, every problem at once.

`load_plant` is pure: it takes the files' bytes and gives the typed `Plant`, or the problems with
their places. The same function reads a folder and a bundle from the journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

from connectors.errors import ConfigError
from flows.environment_references import refuse_references, resolve_references
from flows.plant_actions import read_actions
from flows.plant_file import MasterData, Plant, PlantYaml, Shards
from flows.plant_files import check_files_products
from flows.plant_formulas import read_formulas
from flows.plant_later import LATER
from flows.plant_products import read_products
from flows.plant_reach import check_reach
from flows.plant_rules import read_rules, rule_product
from flows.plant_shards import check_shards
from flows.plant_sources import check_plant_yaml, check_source_files, check_source_products
from flows.plant_sparkplug import check_sparkplug_products
from flows.plant_tables import (
    DEVICE_COLUMNS,
    Table,
    check_devices,
    check_dividing,
    check_joins,
    read_table,
)
from operators.attributes import NOT_JOINED
from operators.convert import convert
from operators.document import Node, Problem, Problems, decode_text, load_yaml, nearest
from rules.check import samples_of, scope_of

FOLDERS: Final = ("products", "rules", "formulas", "actions", "tests")
TABLES: Final = {"devices.csv": "device_id", "sites.csv": "site_id", "customers.csv": "customer_id"}
MAX_FILES: Final = 10_000
MAX_BUNDLE: Final = 32 << 20
_SKIPPED: Final = (".", "__pycache__")


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a plant by their path in the folder: plant.yaml, the tables, and the YAML files
    of products/, rules/, formulas/, actions/ and tests/, and the Python files of products/. Raises
    `ConfigError` beyond a cap.
    """
    files: dict[str, bytes] = {}
    total = 0
    for path in _plant_files(folder):
        if not path.is_file():
            continue
        total += path.stat().st_size
        if len(files) >= MAX_FILES or total > MAX_BUNDLE:
            raise ConfigError(
                f"{folder}: more than {MAX_FILES} files or {MAX_BUNDLE >> 20} MiB for one plant"
            )
        files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def python_beside(file: Path) -> dict[str, bytes]:
    """The Python files beside a product file, by their path in a plant."""
    return {f"products/{one.name}": one.read_bytes() for one in sorted(file.resolve().parent.glob("*.py"))}


def _plant_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if path.name.startswith(_SKIPPED):
            continue
        if path.is_dir():
            if _folder_of(name) is not None:
                wanted = (_is_yaml, _is_python) if _folder_of(name) == "products" else (_is_yaml,)
                yield from (one for one in sorted(path.iterdir()) if any(kind(one.name) for kind in wanted))
        elif _is_yaml(name) or name.endswith(".csv"):
            yield path


def _is_yaml(name: str) -> bool:
    return name.lower().endswith((".yaml", ".yml")) and not name.startswith(".")


def _is_python(name: str) -> bool:
    return name.endswith(".py") and not name.startswith((".", "__"))


def _folder_of(name: str) -> str | None:
    """The folder of a plant that a name means: itself, or the one it was nearly called."""
    return name if name in FOLDERS else (f"{name}s" if f"{name}s" in FOLDERS else None)


def load_bundle(files: Mapping[str, bytes]) -> Plant:
    """The plant of a journaled bundle; nothing of this machine's environment gets into it."""
    plant, problems = load_plant(files, None, applied=True)
    if plant is None:
        raise ConfigError(f"the applied plant cannot be read by this version:\n{problems.render()}")
    return plant


def load_plant(
    files: Mapping[str, bytes],
    environ: Mapping[str, str] | None,
    *,
    name_hint: str = "",
    applied: bool = False,
) -> tuple[Plant | None, Problems]:
    """The plant, or None if anything is wrong; warnings may stand in the problems either way.

    environ: where `${...}` of plant.yaml are read; None leaves them (a default stands in).
    name_hint: the folder's name, for the message that there is no plant in it. applied: it runs already,
    so that what would never reach its products is no mistake any more.
    """
    problems = Problems()
    documents: dict[str, list[Node]] = {}
    for path in sorted(files):
        if _misnamed(path, files, problems):
            continue
        if path.endswith(".yaml"):
            documents[path] = _read_yaml(path, files[path], problems)
    config = _plant_yaml(files, documents, environ, name_hint, problems)
    tables = _tables(files, problems)
    devices = tables.get("devices.csv")
    rows = devices.rows if devices is not None else {}
    products = read_products(_of("products", documents), rows, problems, files)
    if config is not None and config.devices.source == "file":
        check_joins(tables, problems)
    if devices is not None:
        check_devices(devices, products.declared, products.complete, products.numeric_params, problems)
    actions = read_actions(_of("actions", documents), problems)
    columns = devices.columns if devices is not None else ()
    if config is not None and config.devices.source == "stream":
        columns = tuple(dict.fromkeys((*columns, *DEVICE_COLUMNS, "customer_id")))
    columns = tuple(dict.fromkeys((*columns, *_joined_columns(tables))))
    dated = {file.removesuffix(".csv"): table.later() for file, table in tables.items()}
    samples = samples_of(rows, columns, chain.from_iterable(dated.get("devices", {}).values()))
    formulas = read_formulas(
        _of("formulas", documents),
        products,
        lambda product: scope_of(rule_product(product), columns, samples),
        "customer_id" in columns,
        problems,
    )
    if devices is not None or columns:
        known = devices or Table("devices.csv", (), {}, {}, [])
        devices = known._replace(columns=columns)
    rules, declared_rules = read_rules(
        _of("rules", documents), products, devices, actions, formulas, _shards(config), problems
    )
    if config is not None:
        check_source_files(documents["plant.yaml"][0], config, files, problems)
    if config is not None and products.complete:
        check_source_products(documents["plant.yaml"][0], config, products.declared, problems)
    if config is not None:
        root = documents["plant.yaml"][0]
        check_shards(root, config, products.good, _of("products", documents), problems)
        if devices is not None and _shards(config).count > 1 and _shards(config).by in devices.columns:
            check_dividing(devices, _shards(config).by, problems)
        check_files_products(root, config, products.good, problems)
        check_sparkplug_products(root, config, products.good, problems)
        sound = products.complete and not applied
        if sound and not any(problem.file == root.file for problem in problems.errors):
            check_reach(root, config, products.good, _of("products", documents), rows, problems)
    products.check_references(declared_rules, formulas.declared, problems)
    if config is None or problems.errors:
        return None, problems
    bundle = {path: data for path, data in sorted(files.items()) if not path.startswith("tests/")}
    csv_rows = {name: dict(table.rows) for name, table in tables.items()}
    master = MasterData(
        devices=csv_rows.get("devices.csv", {}),
        sites=csv_rows.get("sites.csv", {}),
        customers=csv_rows.get("customers.csv", {}),
        columns=columns,
        dated={table: rows for table, rows in dated.items() if rows},
    )
    plant = Plant(
        name=config.plant,
        timezone=config.timezone,
        sha256=bundle_hash(bundle),
        files=bundle,
        products=products.good,
        rules=rules,
        actions=actions.known,
        formulas=formulas,
        master=master,
        sources=config.sources,
        devices=config.devices,
        sinks=config.sinks,
        historian=config.historian,
        server=config.server,
        journal=config.journal,
        limits=config.limits,
        archive=config.archive,
        shards=config.shards,
        tests=_of("tests", documents),
    )
    return plant, problems


def bundle_hash(files: Mapping[str, bytes]) -> str:
    """SHA-256 in hex over path, length and bytes of each file, sorted by path."""
    state = hashlib.sha256()
    for path, data in sorted(files.items()):
        state.update(path.encode("utf-8") + b"\0" + str(len(data)).encode() + b"\0" + data)
    return state.hexdigest()


def _of(folder: str, documents: Mapping[str, list[Node]]) -> dict[str, list[Node]]:
    return {path: nodes for path, nodes in documents.items() if path.startswith(f"{folder}/")}


def _misnamed(path: str, files: Mapping[str, bytes], problems: Problems) -> bool:
    """Files that would be left out because of their name are told, not ignored."""
    folder, slash, name = path.rpartition("/")
    mend = ""
    if path.lower().endswith(".yml"):
        mend = f"{path[:-4]}.yaml"
    elif slash and folder not in FOLDERS:
        mend = f"{_folder_of(folder.lower()) or folder.lower()}/{name}"
    elif not slash and path.endswith(".yaml") and path != "plant.yaml":
        known = nearest(path, ["plant.yaml"])
        mend = "plant.yaml" if known else ""
    elif not slash and path.lower().endswith(".csv") and path not in TABLES:
        if path.encode() in files.get("plant.yaml", b""):
            return False  # a source's, e.g. the nodes of an OPC UA server
        mend = next(
            (table for table in TABLES if table == path.lower() or nearest(path[:-4], [table[:-4]])), ""
        )
    if mend and mend != path:
        problems.found.append(Problem(path, 1, 1, "", f"is not read under this name; rename it to {mend}"))
        return True
    return False


def _read_yaml(path: str, data: bytes, problems: Problems) -> list[Node]:
    text = decode_text(data, path, problems)
    if text is None:
        return []
    nodes = load_yaml(text, path, problems)
    if path.startswith(("products/", "rules/", "formulas/")) and "${" in text:
        for node in nodes:
            refuse_references(node, problems)
    return nodes


def _shards(config: PlantYaml | None) -> Shards:
    """How the plant is divided, as far as that could be made out."""
    sound = config is not None and isinstance(config.shards, Shards)
    return config.shards if config is not None and sound else Shards()


def _plant_yaml(
    files: Mapping[str, bytes],
    documents: Mapping[str, list[Node]],
    environ: Mapping[str, str] | None,
    name_hint: str,
    problems: Problems,
) -> PlantYaml | None:
    path = "plant.yaml"
    if path not in files:
        where = f"'{name_hint}'" if name_hint else "the folder"
        problems.found.append(
            Problem(path, 0, 0, "", f"no plant.yaml in {where}; start one with: penstock new DIR")
        )
        return None
    nodes = documents[path]
    if not nodes:
        if not any(problem.file == path for problem in problems.found):
            problems.found.append(
                Problem(path, 1, 1, "", "the file is empty; it needs 'plant' and 'sources'")
            )
        return None
    if len(nodes) > 1:
        problems.add(nodes[1], "plant.yaml is one document; remove the '---'")
    resolve_references(nodes[0], environ, problems)
    config = convert(nodes[0], PlantYaml, problems, LATER, partial=True)
    if config is not None:
        check_plant_yaml(nodes[0], config, problems)
    return config


def _joined_columns(tables: Mapping[str, Table]) -> list[str]:
    """Columns of sites.csv and customers.csv that a device has as attributes."""
    return [
        column
        for file in ("sites.csv", "customers.csv")
        if file in tables
        for column in tables[file].columns
        if column not in NOT_JOINED and not (file == "customers.csv" and column == "customer_id")
    ]


def _tables(files: Mapping[str, bytes], problems: Problems) -> dict[str, Table]:
    tables = {}
    for file, key in TABLES.items():
        if file in files:
            required = (key, "productId") if file == "devices.csv" else (key,)
            table = read_table(file, files[file], key, required, problems)
            if table is not None:
                tables[file] = table
    return tables
