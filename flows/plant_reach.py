"""Checks across plant.yaml, products and devices.csv: whether what sources bring can reach a product, and
whether two of them get in each other's way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from connectors.http.config import HttpConfig
from connectors.kafka.config import KafkaConfig, is_template, topics_of
from connectors.mqtt.config import MqttConfig, subscriptions
from connectors.tcp.config import TcpConfig, listen_address
from flows.plant_file import PlantYaml, Product, SourceConfig
from operators.decode.routing import filter_problem
from operators.document import Node, Problems, nearest

SHARED: Final = "$share"
ANYWHERE: Final = ("0.0.0.0", "::", "")  # noqa: S104  # nothing is bound to them here


def check_reach(
    node: Node,
    config: PlantYaml,
    products: Mapping[str, Product],
    documents: Mapping[str, Sequence[Node]],
    devices: Collection[str],
    problems: Problems,
) -> None:
    """All of these checks, for a plant.yaml without a mistake of its own and products that could all be read.
    node: of plant.yaml; documents: of products/*.yaml; devices: of devices.csv."""
    sources = node.get("sources")
    places = {
        name: below
        for name in config.sources
        if sources is not None and (below := sources.get(name)) is not None
    }
    _check_listeners(node, config, places, problems)
    _check_pairs(config, places, problems)
    for name, place in places.items():
        _check_const(place.get("device"), config, name, devices, problems)
    mqtt = {name: one for name, one in config.sources.items() if isinstance(one, MqttConfig)}
    topics = [topic for product in products.values() for topic in product.topics]
    if products and all(product.topics for product in products.values()):
        for name, source in mqtt.items():
            _check_subscribed(places.get(name), source, topics, problems)
    _check_topics(config, mqtt, documents, problems)


def _check_listeners(node: Node, config: PlantYaml, places: Mapping[str, Node], problems: Problems) -> None:
    """No two of a plant's own addresses are one."""
    taken: list[tuple[str, int, str]] = []
    for what, listen, place in _listeners(node, config, places):
        try:
            host, port = listen_address(listen)
        except ValueError:  # told elsewhere, or a reference that is resolved elsewhere
            continue
        other = next(
            (
                name
                for there, number, name in taken
                if number == port != 0 and (there == host or there in ANYWHERE or host in ANYWHERE)
            ),
            None,
        )
        if other is not None and place is not None:
            problems.add(place, f"port {port} is taken by {other}; choose another")
        taken.append((host, port, what))


def _listeners(
    node: Node, config: PlantYaml, places: Mapping[str, Node]
) -> Iterator[tuple[str, str, Node | None]]:
    """What listens, where, and where that is written; what is written nowhere comes first."""
    found = []
    for name, listen in (("historian", config.historian.listen), ("server", config.server.listen)):
        below = node.get(name)
        place = below.get("listen") if below is not None else None
        if name != "historian" or config.historian.url == "embedded":
            found.append((f"{name}.listen", listen, place))
    for name, source in config.sources.items():
        if isinstance(source, TcpConfig | HttpConfig):
            below = places.get(name)
            found.append(
                (f"sources.{name}", source.listen, below.get("listen") if below is not None else None)
            )
    yield from found


def _check_pairs(config: PlantYaml, places: Mapping[str, Node], problems: Problems) -> None:
    """Sources that read the same, or would push each other off the broker."""
    names = [name for name in config.sources if name in places]
    for at, name in enumerate(names):
        for other in names[:at]:
            one, before = config.sources[name], config.sources[other]
            if isinstance(one, MqttConfig) and isinstance(before, MqttConfig):
                _check_brokers(config.plant, (name, one), (other, before), places[name], problems)
            elif isinstance(one, KafkaConfig) and isinstance(before, KafkaConfig):
                _check_kafka((name, one), (other, before), places[name], problems)


def _check_brokers(
    plant: str,
    one: tuple[str, MqttConfig],
    other: tuple[str, MqttConfig],
    place: Node,
    problems: Problems,
) -> None:
    (name, source), (before, earlier) = one, other
    if (source.host, source.port) != (earlier.host, earlier.port):
        return
    if source.client_id is not None and source.client_id == (
        earlier.client_id or f"penstock-{plant}-{before}"
    ):
        problems.add(
            place,
            f"sources.{before} has the same client_id, and a broker ends the older of two sessions of one "
            "name; give each its own",
            key="client_id",
        )
    elif earlier.client_id is not None and earlier.client_id == f"penstock-{plant}-{name}":
        problems.add(
            place, f"sources.{before} has this source's client_id, '{earlier.client_id}'; give each its own"
        )
    if source.carries != earlier.carries:
        return
    subscribe = place.get("subscribe")
    for number, text in enumerate(source.subscribe):
        shared = text.startswith(f"{SHARED}/")  # the broker gives each message to one of a group
        crossing = next((one for one in subscriptions(earlier) if not shared and meet(text, one)), None)
        if crossing is not None and subscribe is not None and subscribe.is_list:
            problems.warn(
                subscribe.value[number],
                f"crosses '{crossing}' of sources.{before}, so such a message comes in twice; narrow one",
            )


def _check_kafka(
    one: tuple[str, KafkaConfig], other: tuple[str, KafkaConfig], place: Node, problems: Problems
) -> None:
    (_, source), (before, earlier) = one, other
    if source.bootstrap != earlier.bootstrap:
        return
    apart = (
        source.partitions is not None
        and earlier.partitions is not None
        and not set(source.partitions) & set(earlier.partitions)
    )
    same = [topic for topic in topics_of(source) if topic in topics_of(earlier) and not is_template(topic)]
    if same and not apart and source.carries == earlier.carries:
        problems.warn(
            place,
            f"sources.{before} reads '{same[0]}' too, so each message comes in twice; give them different "
            "topics or partitions",
            key="topic",
        )
    if source.group is not None and source.group == earlier.group:
        problems.warn(
            place,
            f"sources.{before} has the same group, in which only one can show how far reading is; give each "
            "its own",
            key="group",
        )


def _check_const(
    place: Node | None, config: PlantYaml, name: str, devices: Collection[str], problems: Problems
) -> None:
    """A device that is named once and for all, and is not there, can send nothing that is taken."""
    kind, _, device = config.sources[name].device.partition(":")
    if place is None or place.masked or kind != "const" or not device or device in devices:
        return
    if config.devices.unknown == "reject" and config.devices.source == "file":
        problems.add(
            place,
            f"no device '{device}' in devices.csv, so every frame is rejected{nearest(device, devices)}; add "
            "it, or set devices.unknown to hold or accept",
        )


def _check_subscribed(
    place: Node | None, source: MqttConfig, topics: Sequence[str], problems: Problems
) -> None:
    """Filters that no product's topics meet. Other roles than telemetry need none."""
    subscribe = place.get("subscribe") if place is not None else None
    if subscribe is None or not subscribe.is_list or source.product is not None or source.carries != "frames":
        return
    for one in subscribe:
        text = str(one.value)
        reached = filter_problem(text) is not None or any(meet(text, topic) for topic in topics)
        if not reached and not _is_other_role(text):
            problems.warn(one, "no product's 'topics' take what this brings, so it would all be rejected")


def _is_other_role(text: str) -> bool:
    """Whether a filter of FORMATS' topics asks for what is no telemetry."""
    levels = text.split("/")
    return len(levels) == 8 and levels[0] == "iotlink" and levels[6] not in ("+", "telemetry")


def _check_topics(
    config: PlantYaml,
    mqtt: Mapping[str, MqttConfig],
    documents: Mapping[str, Sequence[Node]],
    problems: Problems,
) -> None:
    """Topics of products that no source subscribes to. Only MQTT's are known beforehand."""
    filters = [one for source in mqtt.values() if source.carries == "frames" for one in subscriptions(source)]
    if not mqtt or len(mqtt) < len(config.sources) or any("${" in one for one in filters):
        return
    for document in (one for nodes in documents.values() for one in nodes):
        for one in document.get("topics") or ():
            text = str(one.value)
            if filter_problem(text) is None and not any(meet(text, other) for other in filters):
                problems.warn(one, f"no source subscribes to this{_brought(mqtt)}")


def _brought(mqtt: Mapping[str, SourceConfig]) -> str:
    told = [f"sources.{name}" for name in mqtt]
    return f"; {told[0]}.subscribe would have to take it" if len(told) == 1 else ""


def _levels(text: str) -> list[str]:
    levels = text.split("/")
    return levels[2:] if levels[0] == SHARED and len(levels) > 2 else levels


def meet(one: str, other: str) -> bool:
    """Whether there is a topic that both filters take (MQTT 3.1.1, section 4.7; MQTT 5's `$share/GROUP/`
    before a filter says nothing of topics)."""
    left, right = _levels(one), _levels(other)
    for side, against in ((left, right), (right, left)):
        if side[0].startswith("$") and against[0] in ("+", "#"):
            return False
    for at in range(max(len(left), len(right))):
        ends = [side[at] if at < len(side) else None for side in (left, right)]
        if "#" in ends:
            return True
        if None in ends:
            rest = (left if len(left) > len(right) else right)[at:]
            return rest == ["#"]
        if "+" not in ends and ends[0] != ends[1]:
            return False
    return True
