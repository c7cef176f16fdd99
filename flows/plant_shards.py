"""Checks of `shards` in plant.yaml: that the shard of every frame can be told from its address alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from connectors.journal.kafka_config import JournalConfig
from flows.plant_file import DevicesConfig, PlantYaml, Product, Shards
from operators.document import Node, Problems

MOST: Final = 64
_WIDTH: Final = ("device_id", "hub_id", "site_id", "customer_id", "productId")
LEAST_JOURNAL: Final = 16_000_000  # bytes of one shard's


def check_shards(
    node: Node,
    config: PlantYaml,
    products: Mapping[str, Product],
    documents: Mapping[str, Sequence[Node]],
    problems: Problems,
) -> None:
    """All checks of how a plant is divided. node: of plant.yaml; documents: of products/*.yaml."""
    shards = node.get("shards")
    count = shards.get("count") if shards is not None else None
    if shards is None or count is None or not isinstance(config.shards, Shards):
        return
    if not 1 <= config.shards.count <= MOST:
        problems.add(count, f"a number from 1 to {MOST} is expected")
    if config.shards.count < 2:
        return
    one = "or set shards.count to 1"
    streamed = isinstance(config.devices, DevicesConfig) and config.devices.source != "file"
    if config.shards.by != "device_id" and streamed:
        told = "sites" if config.shards.by == "site_id" else "hubs"
        problems.add(
            shards.get("by") or shards,
            f"{told} that come by a stream are known too late to choose a shard; set devices.source to file, "
            f"or shards.by to device_id, {one}",
        )
    journal = node.get("journal")
    size = journal.get("max") if journal is not None else None
    told_size = isinstance(config.journal, JournalConfig) and size is not None and not size.masked
    if size is not None and told_size and config.journal.max < LEAST_JOURNAL * config.shards.count:
        least = f"{LEAST_JOURNAL * config.shards.count // 1_000_000}MB"
        problems.add(size, f"the journals of {config.shards.count} shards need at least {least} together")
    sources = node.get("sources")
    for name, source in config.sources.items():
        below = sources.get(name) if sources is not None else None
        if below is not None and source.device.startswith("payload:"):
            problems.add(
                below.get("device") or below,
                "a shard is chosen before the payload is read, so it cannot name the device; say where the "
                f"address names it (topic, peer, header:NAME or const:NAME), {one}",
            )
    for document in (one for nodes in documents.values() for one in nodes):
        _check_product(document, products, config, problems, one)


def _check_product(
    document: Node, products: Mapping[str, Product], config: PlantYaml, problems: Problems, one: str
) -> None:
    """A product whose frames tell of more than the device of their address."""
    name, decode = document.get("productId"), document.get("decode")
    product = products.get(str(name.value)) if name is not None else None
    if product is None or decode is None:
        return
    for window, below in zip(product.windows, document.get("windows") or (), strict=False):
        if window.by and _WIDTH.index(window.over) > _WIDTH.index(config.shards.by):
            problems.add(
                below.get("by") or below,
                f"'{window.over}' is wider than shards.by, which is {config.shards.by}: each shard would "
                f"have a part of the window, and joining them is not yet in this version; {one}",
            )
    rows = getattr(product.decode.layout, "rows", None)
    if rows is not None and rows.device is not None:
        problems.add(
            decode.get("device") or decode,
            "a frame with the readings of several devices has no shard; let each device have frames of its "
            f"own, {one}",
        )
    if decode.get("nodes") is not None and config.shards.by == "device_id":
        problems.add(
            decode,
            f"a hub registers its children in its own shard alone; set shards.by to hub_id, {one}",
            key="nodes",
        )
