"""Nodes at a server: their names resolved there, and the variables of a subtree."""

from __future__ import annotations

import fnmatch
from collections import deque
from typing import Any

from asyncua import ua
from asyncua.client.client import Client

from connectors.errors import ConnectError
from connectors.opcua.config import Browse
from connectors.opcua.nodes import MOST_NODES, NODE, Item

NODES_A_REQUEST = 100


def node_id(text: str, namespaces: list[str]) -> Any:
    """The node of a name at a server with these namespaces; None where it has no such namespace."""
    found = NODE.match(text)
    assert found is not None
    if found["uri"] is None:
        return ua.NodeId.from_string(text)
    if found["uri"] not in namespaces:
        return None
    return ua.NodeId.from_string(f"ns={namespaces.index(found['uri'])};{found['id']}")


async def browse_nodes(client: Client, browse: Browse, namespaces: list[str]) -> list[Item]:
    """The variables below a node, in the server's order; each is named by its namespace's URI, so that
    it is found again. Names of devices and metrics are browse names."""
    root = node_id(browse.root, namespaces)
    if root is None:
        raise ConnectError(f"browse.root: the server has no namespace of '{browse.root}'")
    found: list[Item] = []
    waiting: deque[tuple[Any, tuple[str, ...]]] = deque([(client.get_node(root), ())])
    met = {root}
    while waiting and len(found) < MOST_NODES:
        several = [waiting.popleft() for _ in range(min(len(waiting), NODES_A_REQUEST))]
        answers = await client.browse_nodes([node for node, _ in several])
        for (_, path), (_, answer) in zip(several, answers, strict=True):
            for one in answer.References or ():
                if one.NodeId in met or not one.IsForward:
                    continue
                met.add(one.NodeId)
                there = (*path, one.BrowseName.Name or "")
                if one.NodeClass == ua.NodeClass.Variable and _wanted("/".join(there), browse):
                    found.append(_browsed(one.NodeId, there, browse, namespaces))
                if (
                    one.NodeClass in (ua.NodeClass.Object, ua.NodeClass.Variable)
                    and len(there) < browse.depth
                ):
                    waiting.append((client.get_node(one.NodeId), there))
    return [item for item in found if item.device and item.metric]


def _wanted(path: str, browse: Browse) -> bool:
    return any(fnmatch.fnmatchcase(path, one) for one in browse.include) and not any(
        fnmatch.fnmatchcase(path, one) for one in browse.exclude
    )


def _browsed(node: Any, path: tuple[str, ...], browse: Browse, namespaces: list[str]) -> Item:
    text = node.to_string()
    if node.NamespaceIndex and node.NamespaceIndex < len(namespaces):
        text = f"nsu={namespaces[node.NamespaceIndex]};{text.partition(';')[2]}"
    if len(path) <= browse.device:
        return Item(text, "", "")
    return Item(text, path[browse.device - 1], "/".join(path[browse.device :]))
