"""Checks of `sinks` in plant.yaml beyond types: topics, brokers, and a login that goes with its protocol."""

from __future__ import annotations

import re
from typing import Final, TypeGuard

from connectors.kafka.config import KafkaAlarmsConfig
from operators.document import Node, Problems

_TOPIC: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")
_BROKER: Final = re.compile(r"\S+:[0-9]{1,5}\Z")


def check_sinks(node: Node, alarms: KafkaAlarmsConfig, problems: Problems) -> None:
    """All checks of `sinks.alarms`; node: of plant.yaml."""
    sinks = node.get("sinks")
    below = sinks.get("alarms") if sinks is not None else None
    if below is None or not below.is_map:
        return
    for key, topic in (("events", alarms.events), ("state", alarms.state)):
        place = below.get(key)
        if _is_known(place) and not _TOPIC.match(topic):
            problems.add(place, "a topic's name is 1 to 249 of the letters A-Z a-z 0-9 . _ -")
    if alarms.events == alarms.state and "${" not in alarms.state:
        place = below.get("state") or below.get("events") or below
        problems.add(place, f"both topics are '{alarms.state}'; one of them is compacted, name another")
    for key, count in (("partitions", alarms.partitions), ("replication", alarms.replication)):
        place = below.get(key)
        if _is_known(place) and count is not None and not 1 <= count <= 10_000:
            problems.add(place, "a number from 1 to 10000 is expected")
    place = below.get("bootstrap")
    if _is_known(place) and alarms.bootstrap:
        for broker in alarms.bootstrap.split(","):
            if not _BROKER.match(broker.strip()):
                problems.add(place, f"'{broker.strip()[:60]}' is no address; write host:port,host:port")
                break
    _check_login(below, alarms, problems)


def _check_login(node: Node, alarms: KafkaAlarmsConfig, problems: Problems) -> None:
    protocol = node.get("security_protocol")
    if protocol is not None and not _is_known(protocol):
        return
    written = alarms.security_protocol
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
        brokers = [broker.strip() for broker in alarms.bootstrap.split(",")]
        if not all(broker.startswith(("127.", "localhost:", "[::1]")) for broker in brokers if broker):
            problems.warn(protocol or node, "the password and the alarms cross the network unencrypted")


def _is_known(node: Node | None) -> TypeGuard[Node]:
    """Whether its value is written in the file: a reference is checked where it is resolved."""
    return node is not None and not node.masked and "${" not in str(node.value)


def _given(node: Node, key: str) -> Node | None:
    child = node.get(key)
    return child if child is not None and child.value is not None else None
