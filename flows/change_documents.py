"""What differs between two plant folders, item by item and key by key, as their files say it.

Items are what people name: a rule, a product, a source, a device. Values are shown as they are
written, so nothing of the environment and no secret gets in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from flows.plant_tables import read_table
from operators.document import Node, Problems, decode_text, load_yaml

Kind = Literal["added", "changed", "removed"]
FOLDERS: Final[Mapping[str, tuple[str, str]]] = {  # folder -> what one is called, and its name's key
    "products": ("product", "productId"),
    "rules": ("rule", "ruleId"),
    "formulas": ("formula", "formulaId"),
    "actions": ("action", "actionId"),
}
TABLES: Final[Mapping[str, tuple[str, str]]] = {
    "devices.csv": ("device", "device_id"),
    "sites.csv": ("site", "site_id"),
    "customers.csv": ("customer", "customer_id"),
}
_NAMED_SECTIONS: Final[Mapping[str, str]] = {"sources": "source", "sinks": "sink"}
_NAMES: Final = ("every", "path", "id", "idShort", "name")  # what tells the elements of a list apart
_SECRET: Final = ("password", "token", "secret", "api_key")
_ABSENT: Final = object()


class KeyChange(msgspec.Struct, frozen=True):
    """One key: its path, and its value before and after (None: it is not there)."""

    key: str
    old: str | None
    new: str | None

    def line(self) -> str:
        if self.old is None:
            return f"{self.key}: added {self.new}"
        if self.new is None:
            return f"{self.key}: removed (was {self.old})"
        return f"{self.key}: {self.old} -> {self.new}"


class ItemChange(msgspec.Struct, frozen=True):
    """One item that is not the same. file: where it stands now, or stood."""

    kind: str
    name: str
    change: Kind
    file: str
    keys: list[KeyChange]


Items = dict[tuple[str, str], tuple[str, Any]]  # kind and name -> file and plain value


def changed_items(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[ItemChange]:
    """The items of two bundles that differ; in the order of the files after, what is gone behind."""
    old, new = _items(before), _items(after)
    found = []
    for key in [*new, *(key for key in old if key not in new)]:
        kind, name = key
        file_before, was = old.get(key, ("", _ABSENT))
        file, now = new.get(key, (file_before, _ABSENT))
        if was is _ABSENT:
            found.append(ItemChange(kind, name, "added", file, []))
        elif now is _ABSENT:
            found.append(ItemChange(kind, name, "removed", file_before, []))
        elif was != now:
            found.append(ItemChange(kind, name, "changed", file, list(_keys("", was, now))))
    return found


def _items(files: Mapping[str, bytes]) -> Items:
    found: Items = {}
    for path in sorted(files, key=_order):
        folder = path.partition("/")[0]
        if path == "plant.yaml":
            for node in _documents(path, files[path]):
                found.update(_sections(path, node))
        elif folder in FOLDERS and path.endswith(".yaml"):
            kind, key = FOLDERS[folder]
            for node in _documents(path, files[path]):
                name = node.get(key)
                if name is not None:
                    found[kind, str(name.value)] = (path, node.plain())
        elif path in TABLES:
            kind, key = TABLES[path]
            table = read_table(path, files[path], key, (key,), Problems())
            met: set[str] = set()
            for name_, row, _ in table.every() if table is not None else ():
                told = f"{name_} from {row['valid_from']}" if name_ in met else name_
                met.add(name_)
                found[kind, told] = (path, {column: cell for column, cell in row.items() if cell})
        elif not path.startswith("tests/") and not path.endswith(".yaml"):
            found["file", path] = (path, files[path])
    return found


def _order(path: str) -> tuple[int, str]:
    ranks = ("plant.yaml", "products", "formulas", "rules", "actions")
    first = path.partition("/")[0]
    return (ranks.index(first) if first in ranks else len(ranks), path)


def _documents(path: str, data: bytes) -> list[Node]:
    text = decode_text(data, path, Problems())
    return [] if text is None else load_yaml(text, path, Problems())


def _sections(path: str, node: Node) -> Iterator[tuple[tuple[str, str], tuple[str, Any]]]:
    for key, child in node.items():
        if key in _NAMED_SECTIONS and child.is_map:
            for name, below in child.items():
                yield (_NAMED_SECTIONS[key], name), (path, below.plain())
        else:
            yield ("plant.yaml", key), (path, child.plain())


def _keys(path: str, old: Any, new: Any) -> Iterator[KeyChange]:
    """The leaves that differ."""
    old, new = _named(old), _named(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            below = _joined(path, key)
            if old.get(key, _ABSENT) != new.get(key, _ABSENT):
                yield from _keys(below, old.get(key, _ABSENT), new.get(key, _ABSENT))
        return
    yield KeyChange(path or "value", _shown(path, old), _shown(path, new))


def _joined(path: str, key: Any) -> str:
    text = str(key)
    return text if not path else f"{path}{text}" if text.startswith("[") else f"{path}.{text}"


def _named(value: Any) -> Any:
    """A list whose elements have names, as a mapping by them; anything else as it is."""
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        return value
    for name in _NAMES:
        names = [one.get(name) for one in value]
        if None not in names and len({str(one) for one in names}) == len(names):
            return {f"[{one}]": below for one, below in zip(names, value, strict=True)}
    return value


def _shown(path: str, value: Any) -> str | None:
    if value is _ABSENT:
        return None
    if any(word in path.lower() for word in _SECRET) and "${" not in str(value):
        return "***"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
