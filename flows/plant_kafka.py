"""Checks of what speaks to Kafka: brokers, topics, a login that goes with its protocol, and sources."""

from __future__ import annotations

import re
from typing import Final, TypeGuard

from connectors.kafka.config import (
    KafkaClientConfig,
    KafkaConfig,
    is_reserved_here,
    is_template,
    start_ms,
    topics_of,
)
from operators.decode.routing import device_problem, template_problem
from operators.document import Node, Problems

_TOPIC: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")
_BROKER: Final = re.compile(r"\S+:[0-9]{1,5}\Z")
_PLACE: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


def topic_problem(topic: str) -> str | None:
    """What is wrong with the name of a topic, if anything."""
    return None if _TOPIC.match(topic) else "a topic's name is 1 to 249 of the letters A-Z a-z 0-9 . _ -"


def check_brokers(node: Node, client: KafkaClientConfig, problems: Problems) -> None:
    """`bootstrap`; node: of what holds it."""
    place = node.get("bootstrap")
    if is_known(place) and client.bootstrap:
        for broker in client.bootstrap.split(","):
            if not _BROKER.match(broker.strip()):
                problems.add(place, f"'{broker.strip()[:60]}' is no address; write host:port,host:port")
                break


def check_login(node: Node, client: KafkaClientConfig, problems: Problems, what: str) -> None:
    """A login that goes with its protocol. what: goes to the brokers or comes from them."""
    protocol = node.get("security_protocol")
    if protocol is not None and not is_known(protocol):
        return
    written = client.security_protocol
    password = _given(node, "password")
    if password is not None and not password.masked:
        problems.warn(
            password, "a password in plain text is kept in the journal; write ${NAME} or ${file:PATH}"
        )
    if written.startswith("SASL"):
        for key in ("username", "password"):
            if _given(node, key) is None:
                problems.add(protocol or node, f"{written} needs '{key}'")
    else:
        for key in ("username", "password", "sasl_mechanism"):
            if _given(node, key) is not None:
                mend = "SASL_SSL" if written == "SSL" else "SASL_SSL, or SASL_PLAINTEXT"
                problems.add(node, f"'{key}' goes with security_protocol: {mend}", key=key)
    if not written.endswith("SSL"):
        for key in ("ca_file", "cert_file", "key_file"):
            if _given(node, key) is not None:
                mend = "SASL_SSL" if written.startswith("SASL") else "SSL, or SASL_SSL"
                problems.add(node, f"'{key}' goes with security_protocol: {mend}", key=key)
    elif _given(node, "key_file") is not None and _given(node, "cert_file") is None:
        problems.add(node, "'key_file' goes with 'cert_file'", key="key_file")
    if written == "SASL_PLAINTEXT":
        brokers = [broker.strip() for broker in client.bootstrap.split(",")]
        if not all(broker.startswith(("127.", "localhost:", "[::1]")) for broker in brokers if broker):
            problems.warn(protocol or node, f"the password and the {what} cross the network unencrypted")


def check_kafka_source(node: Node, source: KafkaConfig, problems: Problems) -> None:
    """All checks of a source of kind kafka."""
    place = node.get("bootstrap")
    if is_known(place) and not source.bootstrap:
        problems.add(place, "a source needs its brokers: host:port,host:port")
    check_brokers(node, source, problems)
    check_login(node, source, problems, "frames")
    _check_topics(node, source, problems)
    device = node.get("device")
    if device is not None and (told := device_problem(source.device, keyed=True)) is not None:
        problems.add(device, told)
    place = node.get("address")
    if is_known(place) and not re.fullmatch(r"topic|key|header:.+", source.address):
        problems.add(place, f"'{source.address[:60]}' is unknown; topic, key or header:NAME")
    place = node.get("start")
    if is_known(place) and source.start not in ("earliest", "latest"):
        try:
            start_ms(source.start)
        except ValueError:
            problems.add(place, "earliest, latest or a time such as 2026-03-01T09:00:00Z is expected")
    place = node.get("partitions")
    if is_known(place) and source.partitions is not None:
        numbers = [number for number in source.partitions if isinstance(number, int)]
        if not source.partitions or any(number < 0 for number in numbers):
            problems.add(
                place, "numbers of partitions are expected, e.g. [0, 1]; without the key all are read"
            )
    place = node.get("group")
    if is_known(place) and source.group == "":
        problems.add(place, "the name of the group is empty")
    for one in node.get("headers") or ():
        if is_reserved_here(str(one.value)):
            problems.add(one, f"'{one.value}' is not taken from a message")


def _check_topics(node: Node, source: KafkaConfig, problems: Problems) -> None:
    place = node.get("topic")
    if not is_known(place):
        return
    topics = topics_of(source)
    nodes = list(place) if place.is_list else [place]
    if not nodes:
        problems.add(place, "at least one topic is expected")
    wrong = False
    for one, topic in zip(nodes, topics, strict=False):
        bare = _PLACE.sub("x", topic)
        told = "a part is written {name}" if re.search(r"[{}]", bare) else topic_problem(bare)
        if told is not None:
            wrong = True
            problems.add(one, told)
    if wrong or source.address != "topic":
        template = node.get("template")
        if not wrong and template is not None and source.topic is not None:
            _told(template, template_problem(source.topic, source.device), problems)
        return
    template = node.get("template") or place
    if source.topic is not None:
        _told(template, template_problem(source.topic, source.device), problems)
    elif any(is_template(topic) for topic in topics):
        if source.device == "topic":
            problems.add(
                place, "write with 'template' how the topics' names are read, e.g. plant.{device_id}"
            )
    elif node.get("device") is None and topics:
        names = (
            f"of the device '{topics[0]}'"
            if len(topics) == 1
            else "of the device that its topic is named after"
        )
        mend = "write device: key, payload:PATH or header:NAME (device: topic, if it is so)"
        problems.warn(place, f"every message is {names}; {mend}")


def _told(node: Node, text: str | None, problems: Problems) -> None:
    if text is not None:
        problems.add(node, text)


def is_known(node: Node | None) -> TypeGuard[Node]:
    """Whether its value is written in the file: a reference is checked where it is resolved."""
    return node is not None and not node.masked and "${" not in str(node.value)


def _given(node: Node, key: str) -> Node | None:
    child = node.get(key)
    return child if child is not None and child.value is not None else None
