"""Checks of `sparkplug` in a source of kind mqtt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from connectors.mqtt.config import MqttConfig, SparkplugConfig
from flows.plant_file import PlantYaml, Product
from operators.document import Node, Problems
from operators.sparkplug import NAMESPACE, PLACE

_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "device_id": ("group", "node", "device"),
    "hub_id": ("group", "node"),
}


def check_sparkplug_source(node: Node, source: MqttConfig, problems: Problems) -> None:
    """All checks that need nothing but the source. node: the source's."""
    below = node.get("sparkplug")
    if source.sparkplug is None or below is None:
        return
    for one in node.get("subscribe") or ():
        if str(one.value).partition("/")[0] in ("#", "+", NAMESPACE):
            problems.add(one, f"takes topics of {NAMESPACE}/ too, which 'sparkplug' subscribes to; narrow it")
    carries = node.get("carries")
    if carries is not None and source.carries == "master":
        problems.add(carries, "'sparkplug' brings values of devices; give master data a source of their own")
    _groups(below, source.sparkplug, problems)
    if source.sparkplug.host_id is not None:
        _told(below.get("host_id"), _level_problem(source.sparkplug.host_id, "host application"), problems)
    for key, places in _PARTS.items():
        text = getattr(source.sparkplug, key)
        strange = [name for name in PLACE.findall(text) if name not in places]
        known = ", ".join(f"{{{name}}}" for name in places)
        if strange:
            _told(below.get(key), f"no part '{{{strange[0]}}}'; known: {known}", problems)
        elif f"{{{places[-1]}}}" not in text:
            _told(below.get(key), f"{{{places[-1]}}} is missing, so all would be called the same", problems)
    if source.sparkplug.online == "":
        _told(below.get("online"), "the name of a metric is expected", problems)


def check_sparkplug_products(
    node: Node, config: PlantYaml, products: Mapping[str, Product], problems: Problems
) -> None:
    """A product of a source that brings Sparkplug alone reads typed values. node: of plant.yaml."""
    sources = node.get("sources")
    for name, source in config.sources.items():
        below = sources.get(name) if sources is not None else None
        place = below.get("product") if below is not None else None
        product = products.get(source.product or "")
        if place is None or product is None or not isinstance(source, MqttConfig):
            continue
        if source.sparkplug is not None and product.decode.format != "typed":
            problems.add(
                place,
                f"'{product.productId}' reads {product.decode.format}, and Sparkplug brings typed values; "
                "write decode: {format: typed} there",
            )


def _groups(node: Node, sparkplug: SparkplugConfig, problems: Problems) -> None:
    groups = node.get("groups")
    if groups is None or sparkplug.groups == "all":
        return
    if groups.is_list and not sparkplug.groups:
        problems.add(groups, "at least one group is expected; write all for every group")
    for one in groups if groups.is_list else ():
        _told(one, _level_problem(str(one.value), "group"), problems)


def _level_problem(text: str, what: str) -> str | None:
    if not text or any(one in "+#/" or not one.isprintable() for one in text):
        return f"the name of a {what} is one level of a topic, without '+', '#' and '/'"
    return None


def _told(node: Node | None, text: str | None, problems: Problems) -> None:
    if node is not None and text is not None:
        problems.add(node, text)
