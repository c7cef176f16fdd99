"""Files and folders that plant.yaml names outside the plant's own: whether they are there, on the machine
where `check` runs. What a journaled plant says of them is not looked at again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from connectors.files.config import FilesConfig
from connectors.opcua.config import OpcuaConfig
from flows.plant_file import Plant
from operators.document import Node, Problems, load_yaml

FILES: Final = ("ca_file", "cert_file", "key_file")


def check_paths(plant: Plant, folder: Path, problems: Problems) -> None:
    """Certificates and keys, trust folders, and folders that files are taken from."""
    root = load_yaml(plant.files["plant.yaml"].decode("utf-8-sig"), "plant.yaml", Problems())[0]
    sources = root.get("sources")
    for name, source in plant.sources.items():
        place = sources.get(name) if sources is not None else None
        if place is None:
            continue
        for key in FILES:
            _file(place.get(key), getattr(source, key, None), [folder], problems)
        if isinstance(source, FilesConfig):
            _told(place.get("watch"), watch_problem(folder / source.watch), problems)
        elif isinstance(source, OpcuaConfig) and source.trust is not None:
            _folder(place.get("trust"), folder / source.trust, problems)
    sinks = root.get("sinks")
    alarms = sinks.get("alarms") if sinks is not None else None
    for below, config in ((alarms, plant.sinks.alarms), (root.get("journal"), plant.journal)):
        for key in FILES if below is not None else ():
            _file(below and below.get(key), getattr(config, key, None), [Path(), folder], problems)


def watch_problem(watch: Path) -> str | None:
    """Why files of a folder could not be read and put away, if so; one that is not there is made."""
    if not watch.exists():
        parent = next(path for path in watch.absolute().parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            return f"is not there, and cannot be made: {parent} cannot be written"
        return None
    if not watch.is_dir():
        return "is no folder"
    if not os.access(watch, os.R_OK | os.X_OK):
        return "cannot be read"
    if not os.access(watch, os.W_OK):
        return "cannot be written, so files that are read could not be put away"
    return None


def _file(place: Node | None, named: str | None, folders: list[Path], problems: Problems) -> None:
    """A file that must be there and readable, by its path from one of the folders."""
    if place is None or not named:
        return
    path = next((there for there in (one / named for one in folders) if there.exists()), None)
    shown = f"'{place.raw or place.value}'"  # as it is written: a reference is not resolved here
    if path is None:
        where = "" if Path(named).is_absolute() else ", seen from the plant's folder"
        problems.add(place, f"no file {shown}{where}")
    elif not path.is_file():
        problems.add(place, f"{shown} is no file")
    elif not os.access(path, os.R_OK):
        problems.add(place, f"{shown} cannot be read by this user")


def _folder(place: Node | None, path: Path, problems: Problems) -> None:
    if place is not None and not path.is_dir():
        told = "is no folder" if path.exists() else "is not there, so no server is trusted yet"
        problems.warn(place, f"'{place.raw or place.value}' {told}")


def _told(place: Node | None, text: str | None, problems: Problems) -> None:
    if place is not None and text is not None:
        problems.add(place, f"'{place.raw or place.value}' {text}")
