"""The folders of a plant's shards: who shares a data directory, and that they never change.

With `shards.count: 1` the data directory itself is the shard's folder. With more, `DATA/shards.json`,
written durably at the first start, says how many there are and by what devices are divided, and
shard K has journal, output, recovery, cursors and failed in `DATA/shards/K/`, laid out as DATA is
with one. `run/` with every process's status, `logs/`, the lock and the historian stay in DATA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from connectors.durable import replace_durably
from connectors.errors import ConfigError
from connectors.shards import By

FILE: Final = "shards.json"
FOLDER: Final = "shards"
MEND: Final = (
    "the shards of a plant with data cannot change; run it over a new data directory (--data DIR), the old "
    "one stays to be looked at and replayed"
)


class Divided(msgspec.Struct, frozen=True):
    """How the devices of a data directory are divided."""

    count: int = 1
    by: By = "device_id"


def divided(data: Path) -> Divided:
    """What `DATA/shards.json` says; one shard where there is none. Raises `ConfigError`."""
    path = data / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Divided)
    except FileNotFoundError:
        return Divided()
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def shard_folders(data: Path) -> list[Path]:
    """The folder of each shard of a data directory, by number; [data] where there is one."""
    count = divided(data).count
    return [data] if count == 1 else [data / FOLDER / str(number) for number in range(count)]


def home_of(folder: Path) -> tuple[Path, int | None]:
    """The data directory that a shard's folder lies in, and the shard's number; (folder, None) for
    the folder of an only shard, which is the data directory."""
    if folder.parent.name == FOLDER and folder.name.isdigit() and (folder.parent.parent / FILE).exists():
        return folder.parent.parent, int(folder.name)
    return folder, None


def settle_shards(data: Path, count: int, by: By) -> list[Path]:
    """The folders for a plant of so many shards, made at the first start. Raises `ConfigError` where
    the data directory is divided in another way."""
    kept, asked = divided(data), Divided(count, by if count > 1 else "device_id")
    if kept != asked:
        if any((folder / "journal" / "data.mdb").exists() for folder in shard_folders(data)):
            raise ConfigError(
                f"plant.yaml  shards: {_words(kept)} in {data} cannot become {_words(asked)}: {MEND}"
            )
        if count > 1:
            replace_durably(data / FILE, msgspec.json.encode(asked))
        else:
            (data / FILE).unlink(missing_ok=True)
    folders = shard_folders(data)
    for folder in folders:
        (folder / "run").mkdir(parents=True, exist_ok=True)
        (folder / "run").chmod(0o700)
    return folders


def archive_path(path: str, shard: int | None) -> str:
    """Where the archive of a shard lies: one that is not in the data directory has a folder a shard."""
    if shard is None or not ("://" in path or path.startswith("/")):
        return path
    place, mark, options = path.partition("?")  # of an address: s3://bucket/prefix?region=...
    return f"{place.rstrip('/')}/{FOLDER}/{shard}{mark}{options}"


def _words(one: Divided) -> str:
    return "1 shard" if one.count == 1 else f"{one.count} shards by {one.by}"
