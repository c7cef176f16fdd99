"""JSON frames that hold many readings: where the array of them stands, and what an element says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from flows.scaffold import is_time, leaves

DEEPEST: Final = 3  # members above the array
MOST_BESIDE: Final = 4  # values beside it: a frame of more is about these, and its array about something else
NODES: Final = "nodes"  # FORMATS section 1: devices below a hub
DEVICE_NAMES: Final = frozenset(
    {
        *("device", "deviceid", "devicename", "deviceuid", "devid", "deveui", "enddeviceid", "sensorid"),
        *("serial", "serialno", "serialnumber", "sn", "machineid", "assetid", "equipmentid", "nodeid"),
        *("thingid", "imei", "mac", "macaddress"),
    }
)
LIKELY_NAMES: Final = frozenset({"id", "name", "uuid", "uid", "node", "sensor", "machine", "asset", "thing"})
_METRICS: Final = ("id", "n", "name", "metric", "tag", "key", "signal", "field", "parameter", "channel")
_VALUES: Final = ("v", "value", "val", "reading")
_QUALITIES: Final = ("q", "quality", "status")

Path = tuple[str | int, ...]


class Rows(NamedTuple):
    """array: the path of an array whose elements are readings, () = the frame itself. device, metric, value,
    quality, time: members of an element, "" = there is none; of_frame: the path of the frame's time."""

    array: Path
    device: str = ""
    metric: str = ""
    value: str = ""
    quality: str = ""
    time: str = ""
    of_frame: Path | None = None

    def elements(self, body: Any) -> Iterator[Any]:
        """The readings of a frame."""
        yield from member(body, self.array) or ()


def json_of(payload: bytes) -> Any:
    """What a payload holds; None where it is no JSON."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def member(body: Any, path: Path) -> Any:
    """What stands at a path of names; None where nothing does."""
    for part in path:
        if not isinstance(body, dict) or part not in body:
            return None
        body = body[part]
    return body


def word(name: object) -> str:
    """A member's name, to be looked up among words."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def rows_of(bodies: Sequence[Any]) -> Rows | None:
    """How frames hold their readings, where all hold objects in one array of any length; None where they are
    no such frames."""
    for array in _arrays(bodies[0], ()) if bodies else ():
        found = [member(body, array) for body in bodies]
        if not all(isinstance(one, list) and all(isinstance(e, dict) for e in one) for one in found):
            continue
        elements = [element for one in found for element in one]
        beside = sum(path[: len(array)] != array for path, _ in leaves(bodies[0], ())) if array else 0
        if elements and (not array or (len(elements) > len(bodies) and beside <= MOST_BESIDE)):
            return _read(array, bodies, elements)
    return None


def _arrays(body: Any, path: Path) -> Iterator[Path]:
    if isinstance(body, list):
        yield path
    elif isinstance(body, dict) and len(path) < DEEPEST:
        for key, below in body.items():
            if key and key != NODES and "`" not in key and key.isprintable():
                yield from _arrays(below, (*path, key))


def _read(array: Path, bodies: Sequence[Any], elements: Sequence[dict[str, Any]]) -> Rows:
    device = _first(elements, lambda key: word(key) in DEVICE_NAMES)
    metric = _first(elements, lambda key: word(key) in _METRICS and key != device)
    value = next((key for key in elements[0] if word(key) in _VALUES), "")
    if not (metric and value and len({element[metric] for element in elements}) > 1):
        metric = value = ""
        device = device or _first(elements, lambda key: word(key) in LIKELY_NAMES)
    quality = next((key for key in elements[0] if value and word(key) in _QUALITIES), "")
    time = _time(elements)
    of_frame = next((path for path, one in leaves(bodies[0], ()) if _above(path, one)), None)
    return Rows(array, device, metric, value, quality, time, None if time else of_frame)


def _first(elements: Sequence[dict[str, Any]], wanted: Any) -> str:
    """The first member that is a text in every element, and is wanted."""
    for key in elements[0]:
        texts = all(isinstance(one.get(key), str) and one[key].strip() == one[key] != "" for one in elements)
        if texts and wanted(key):
            return str(key)
    return ""


def _time(elements: Iterable[dict[str, Any]]) -> str:
    keys = [{key for key, value in one.items() if is_time((key,), value)} for one in elements]
    common = set.intersection(*keys) if keys else set()
    return min(common, default="")


def _above(path: Path, value: Any) -> bool:
    return all(isinstance(part, str) for part in path) and is_time(path, value)
