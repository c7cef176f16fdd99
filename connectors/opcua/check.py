"""Whether a server can be read as a source says, for `penstock check --connect`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaError

from connectors.errors import PenstockError
from connectors.opcua.browse import browse_nodes, node_id
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.nodes import Item, read_nodes
from connectors.opcua.security import Identity, connect, quiet
from connectors.source import Surroundings

TIMEOUT_S: Final = 5.0
SHOWN: Final = 3


def try_server(config: OpcuaConfig, surroundings: Surroundings, name: str, nodes: str | None) -> str:
    """What is there; nodes: the text of the nodes file. Raises `OSError` with what is wrong."""
    quiet()
    try:
        return asyncio.run(asyncio.wait_for(_tried(config, surroundings, name, nodes), 4 * TIMEOUT_S))
    except ua.uaerrors.UaStatusCodeError as error:
        raise OSError(f"the server refuses: {ua.StatusCode(error.code).name}") from error
    except (UaError, PenstockError) as error:
        raise OSError(str(error)) from error


async def _tried(config: OpcuaConfig, surroundings: Surroundings, name: str, nodes: str | None) -> str:
    identity = Identity(name, config, surroundings)
    await identity.prepare()
    client = Client(config.endpoint, timeout=TIMEOUT_S)
    client.application_uri = identity.uri
    await connect(client, config, identity)
    try:
        namespaces = await client.get_namespace_array()
        if nodes is None:
            assert config.browse is not None
            found = await browse_nodes(client, config.browse, namespaces)
            return f"the server accepts; browsing finds {len(found)} nodes"
        items = read_nodes(nodes, config.nodes or "")
        missing = await _missing(client, items, namespaces)
    finally:
        with suppress(Exception):
            await client.disconnect()
    if not missing:
        return f"the server accepts; all {len(items)} nodes are there"
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    raise OSError(f"the server accepts, but has no {', '.join(missing[:SHOWN])}{more}")


async def _missing(client: Client, items: list[Item], namespaces: list[str]) -> list[str]:
    ids = [node_id(item.node, namespaces) for item in items]
    missing = [item.node for item, one in zip(items, ids, strict=True) if one is None]
    there = [(item, one) for item, one in zip(items, ids, strict=True) if one is not None]
    for first in range(0, len(there), 500):
        part = there[first : first + 500]
        answers = await client.read_attributes(
            [client.get_node(one) for _, one in part], AttributeIds.NodeClass
        )
        missing += [
            item.node
            for (item, _), answer in zip(part, answers, strict=True)
            if answer.StatusCode is not None and answer.StatusCode.is_bad()
        ]
    return missing
