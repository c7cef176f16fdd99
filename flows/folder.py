"""A plant folder as commands take it: read, checked, with its data directory."""

from __future__ import annotations

import os
from pathlib import Path

from connectors.errors import ConfigError
from flows.plant_file import Plant
from flows.plant_reader import load_plant, read_folder
from flows.shards import home_of


def open_plant(folder: Path) -> Plant:
    """The plant in a folder; raises `ConfigError` with every problem when it is wrong."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    plant, problems = load_plant(read_folder(folder), os.environ, name_hint=folder.name)
    if plant is None or problems.errors:
        raise ConfigError(problems.render())
    return plant


def data_directory(folder: Path, data: Path | None) -> Path:
    """Where a plant's data lives: `--data DIR`, else `.penstock` in the plant folder. Raises `ConfigError`
    where there is no such folder, and for that of one of its shards: a command is about the whole plant."""
    if data is None and not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    where = (data if data is not None else folder / ".penstock").resolve()
    home, shard = home_of(where)
    if shard is not None:
        raise ConfigError(f"{where} is shard {shard} of a plant's data; name the whole: --data {home}")
    return where
