"""What a frame says of devices beside telemetry: that one is provisioned, and who is whose hub.

    role provisioning_complete    {"data": {"productId"?, "name"?}, "nodes"?: [...]}
    any frame of JSON             {"nodes": [{"device_id", "role": hub | child, "parent"?, "productId"?}]}

The device of the first is that of its address. Either registers devices as a change of master data
would (`operators.master`). A device without `productId` is of the product that takes its address. So is
one that a birth of Sparkplug registers, where the plant's devices come by stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from operators.decode.json_spec import NODES, Path, path_text
from operators.decode.reports import UnreadableReportError, json_of, value_at
from operators.master import LONGEST_CELL, LONGEST_NAME, RETIRED, ChangeError, Row, Wanted
from operators.rejects import Reason

ROLE: Final = "provisioning_complete"
HUB, CHILD = "hub", "child"
_TOLD: Final = ("productId", "name")


def read_provisioning(
    payload: bytes, device: str, hub: str, product: str, depth: int, known: Row | None
) -> list[Wanted]:
    """What a frame of that role says. hub: of its address; product: the only one that takes its address,
    or ""; known: the device's row so far. Raises `ChangeError`."""
    data = _json(payload, depth)
    if not isinstance(data, dict):
        raise ChangeError(Reason.malformed, "no JSON object")
    body = data.get("data")
    if body is not None and not isinstance(body, dict):
        raise ChangeError(Reason.malformed, "data: is no object")
    told = {key: _text(body[key], f"data.{key}") for key in _TOLD if body and body.get(key) is not None}
    cells = {"device_id": device, "hub_id": hub, **told}
    if product and "productId" not in told and not (known and known.get("productId")):
        cells["productId"] = product
    if known is not None and known.get("status") == RETIRED:
        cells["status"] = ""  # it is there again
    wanted = [Wanted("devices", device, cells, "data.")]
    if data.get("nodes") is not None:
        wanted += _nodes(data["nodes"], NODES, device, hub)
    return wanted


def read_nodes(payload: bytes, path: Path, device: str, hub: str, depth: int) -> list[Wanted]:
    """What `nodes` of a frame of telemetry say; device, hub: of its address. Raises `ChangeError`."""
    found = value_at(_json(payload, depth), path)
    return [] if found is None else _nodes(found, path, device, hub)


def read_birth(device: str, hub: str, product: str, known: Row | None) -> list[Wanted]:
    """What a Sparkplug birth says: its device is there, under its edge node. A node tells its births whenever
    it connects, so they fill in what master data leave open, and take nothing back. hub, product: as in
    `read_provisioning`; a device that no one product takes is not registered. Raises `ChangeError`."""
    if (known is None and not product) or (known is not None and known.get("status") == RETIRED):
        return []
    told = {"hub_id": hub, "productId": product}
    cells = {name: cell for name, cell in told.items() if cell and not (known and known.get(name))}
    if not cells:
        return []
    name = _text(device, "the birth's device", LONGEST_NAME)
    return [Wanted("devices", name, {"device_id": name, **cells}, "birth: ")]


def _json(payload: bytes, depth: int) -> Any:
    try:
        return json_of(payload, depth)
    except UnreadableReportError as error:
        raise ChangeError(error.reason, error.message) from error


def _nodes(nodes: Any, path: Sequence[str | int], device: str, hub: str) -> list[Wanted]:
    where = path_text(tuple(path))
    if not isinstance(nodes, list):
        raise ChangeError(Reason.malformed, f"{where}: is no list")
    found = []
    for at, node in enumerate(nodes):
        place = f"{where}[{at}]"
        if not isinstance(node, dict):
            raise ChangeError(Reason.malformed, f"{place}: is no object")
        name = _text(node.get("device_id"), f"{place}.device_id", LONGEST_NAME)
        role, parent = node.get("role"), node.get("parent")
        if role not in (None, HUB, CHILD):
            raise ChangeError(Reason.malformed, f"{place}.role: {_shown(role)} is not known; hub or child")
        above = hub or device
        if parent not in (None, ""):
            above = _text(parent, f"{place}.parent", LONGEST_NAME)
        cells = {"device_id": name, "hub_id": name if role == HUB else above}
        if node.get("productId") is not None:
            cells["productId"] = _text(node["productId"], f"{place}.productId")
        found.append(Wanted("devices", name, cells, f"{place}."))
    return found


def _text(value: Any, place: str, most: int = LONGEST_CELL) -> str:
    if value is None:
        raise ChangeError(Reason.malformed, f"{place}: is missing")
    if not isinstance(value, str) or not value or value != value.strip() or not value.isprintable():
        raise ChangeError(Reason.malformed, f"{place}: is no name")
    if len(value) > most:
        raise ChangeError(Reason.malformed, f"{place}: is longer than {most} characters")
    return value


def _shown(value: Any) -> str:
    return f"'{value[:60]}'" if isinstance(value, str) else "what stands there"
