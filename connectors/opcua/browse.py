"""Nodes at a server: their names resolved there, and the variables of a subtree."""

from __future__ import annotations

import fnmatch
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.object_ids import ObjectIds

from connectors.errors import ConnectError
from connectors.opcua.config import Browse
from connectors.opcua.limits import Limits
from connectors.opcua.nodes import MOST_NODES, NODE, Item

SERVER: Final = ua.NodeId(ua.Int32(ObjectIds.Server))
log = logging.getLogger(__name__)
PROPERTY: Final = ua.NodeId(ua.Int32(ObjectIds.HasProperty))


def node_id(text: str, namespaces: list[str]) -> Any:
    """The node of a name at a server with these namespaces; None where it has no such namespace."""
    found = NODE.match(text)
    assert found is not None
    if found["uri"] is None:
        return ua.NodeId.from_string(text)
    if found["uri"] not in namespaces:
        return None
    return ua.NodeId.from_string(f"ns={namespaces.index(found['uri'])};{found['id']}")


class Variable(NamedTuple):
    """A variable that browsing found. path: browse names from the root, its own the last; objects: how many
    of them, from the root, are objects."""

    node: Any
    path: tuple[str, ...]
    objects: int


async def browse_nodes(client: Client, browse: Browse, namespaces: list[str]) -> list[Item]:
    """The variables below a node that are wanted, in the server's order; each is named by its namespace's
    URI, so that it is found again. Names of devices and metrics are browse names."""
    root = node_id(browse.root, namespaces)
    if root is None:
        raise ConnectError(f"browse.root: the server has no namespace of '{browse.root}'")
    found = [
        _browsed(one, browse, namespaces)
        for one in await variables(client, root, browse.depth)
        if _wanted("/".join(one.path), browse)
    ]
    named: dict[tuple[str, str], Item] = {}
    for item in found:
        first = named.setdefault((item.device, item.metric), item) if item.device and item.metric else item
        if first is not item:
            both = f"'{item.metric}' of '{item.device}' is both {first.node} and {item.node}"
            log.warning("%s; only the first is read: browse.device chooses another part of the path", both)
    return list(named.values())


async def variables(client: Client, root: Any, depth: int, most: int = MOST_NODES) -> list[Variable]:
    """The variables below a node, in the server's order, each once: not properties of others (a range, a
    unit), and nothing of what the server tells of itself (the Server object), unless that is the root."""
    limits = await Limits.read(client)
    found: list[Variable] = []
    waiting: deque[tuple[Any, tuple[str, ...], int]] = deque([(root, (), 0)])
    met = {root, SERVER}
    while waiting and len(found) < most:
        several = [waiting.popleft() for _ in range(min(len(waiting), limits.nodes_browsed))]
        answers = await _references(client, [node for node, _, _ in several])
        for (_, path, objects), answer in zip(several, answers, strict=True):
            for one in answer:
                if one.NodeId in met or one.ReferenceTypeId == PROPERTY:
                    continue
                met.add(one.NodeId)
                there = (*path, one.BrowseName.Name or "")
                if one.NodeClass == ua.NodeClass.Variable:
                    found.append(Variable(one.NodeId, there, objects))
                if len(there) < depth:
                    above = len(there) if one.NodeClass == ua.NodeClass.Object else objects
                    waiting.append((one.NodeId, there, above))
    return found


async def _references(client: Client, nodes: Sequence[Any]) -> list[list[Any]]:
    """The hierarchical references of each, all parts of them. What a server refuses to tell is empty."""
    session = client.uaclient.session
    parameters = ua.BrowseParameters()
    parameters.View.Timestamp = ua.get_win_epoch()
    parameters.NodesToBrowse = [_description(node) for node in nodes]
    answers = await session.browse(parameters)
    found = [list(answer.References or ()) for answer in answers]
    waiting = {at: answer.ContinuationPoint for at, answer in enumerate(answers) if answer.ContinuationPoint}
    while waiting:
        more = ua.BrowseNextParameters()
        more.ReleaseContinuationPoints = False
        more.ContinuationPoints = list(waiting.values())
        continued = await session.browse_next(more)
        for at, answer in zip(list(waiting), continued, strict=True):
            found[at] += answer.References or ()
            waiting[at] = answer.ContinuationPoint
        waiting = {at: point for at, point in waiting.items() if point}
    return found


def _description(node: Any) -> Any:
    asked = ua.BrowseDescription()
    asked.NodeId = node
    asked.BrowseDirection = ua.BrowseDirection.Forward
    asked.ReferenceTypeId = ua.NodeId(ua.Int32(ObjectIds.HierarchicalReferences))
    asked.IncludeSubtypes = True
    asked.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
    asked.ResultMask = ua.BrowseResultMask.All
    return asked


def node_text(node: Any, namespaces: list[str]) -> str:
    """A node's name with its namespace's URI, as nodes files have it."""
    text = str(node.to_string())
    if node.NamespaceIndex and node.NamespaceIndex < len(namespaces):
        return f"nsu={namespaces[node.NamespaceIndex]};{text.partition(';')[2]}"
    return text


def _wanted(path: str, browse: Browse) -> bool:
    return any(fnmatch.fnmatchcase(path, one) for one in browse.include) and not any(
        fnmatch.fnmatchcase(path, one) for one in browse.exclude
    )


def _browsed(one: Variable, browse: Browse, namespaces: list[str]) -> Item:
    text, path = node_text(one.node, namespaces), one.path
    if len(path) <= browse.device:
        return Item(text, "", "")
    return Item(text, path[browse.device - 1], "/".join(path[browse.device :]))
