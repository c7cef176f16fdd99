"""Checks of plant.yaml beyond types: addresses, templates, time zone, names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from connectors.errors import ConfigError
from connectors.http.config import HttpConfig, header_problem
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.nodes import node_problem, parse_nodes
from connectors.tcp.config import Delimiter, TcpConfig, listen_address
from connectors.tcp.framing import framer
from flows.plant_devices import check_devices_section
from flows.plant_file import PlantYaml, SourceConfig
from flows.plant_files import check_files_source
from flows.plant_journal import check_journal
from flows.plant_kafka import check_kafka_source
from flows.plant_sinks import check_sinks
from flows.plant_sparkplug import check_sparkplug_source
from operators.decode.routing import device_problem, filter_problem, template_problem
from operators.document import Node, Problem, Problems, nearest
from operators.spec import DAY

LONGEST_ID: Final = 128
LOOPBACK: Final = ("127.", "localhost", "::1")
_ID: Final = re.compile(r"[^\s/\x00-\x1f\x7f](?:[^/\x00-\x1f\x7f]*[^\s/\x00-\x1f\x7f])?\Z")
_HOST: Final = re.compile(r"[^\s:/\[\]\x00-\x1f\x7f]{1,253}\Z")
_SOURCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


def id_problem(text: str) -> str | None:
    """What is wrong with the name of a plant, product or rule: it stands in subjects of events,
    addresses and table names."""
    if not text:
        return "the name is empty"
    if len(text) > LONGEST_ID:
        return f"the name is longer than {LONGEST_ID} characters"
    if not _ID.match(text):
        return "a name holds no '/', no control characters, and no blanks at its ends"
    return None


def check_plant_yaml(node: Node, config: PlantYaml, problems: Problems) -> None:
    """All checks of plant.yaml that need nothing but itself."""
    if isinstance(config.plant, str):
        _told(node.get("plant"), id_problem(config.plant), problems)
    if not isinstance(config.sources, dict):
        config.sources = {}
    zone = node.get("timezone")
    if zone is not None and isinstance(zone.value, str) and not _is_zone(config.timezone):
        mend = nearest(config.timezone, available_timezones()) or "; write for example Asia/Seoul"
        problems.add(zone, f"unknown time zone '{config.timezone[:60]}'{mend}")
    sources = node.get("sources")
    if sources is not None and sources.is_map and not sources.value:
        problems.add(node, "at least one source is expected", key="sources")
    for name, source in config.sources.items():
        below = sources.get(name) if sources is not None else None
        if below is None or sources is None:
            continue
        if not _SOURCE.match(name):
            problems.add(
                sources, "the name of a source is at most 64 letters, digits, '_', '-' and '.'", key=name
            )
        _check_source(below, source, problems)
    for section, listen in (("historian", config.historian.listen), ("server", config.server.listen)):
        found = node.get(section)
        below = found.get("listen") if found is not None else None
        _listen(below, listen, problems)
        if below is not None and not _unresolved(listen) and not listen.startswith(LOOPBACK):
            problems.warn(below, "is open to the network; whoever reaches it can read the plant's data")
    check_devices_section(node, config, problems)
    check_sinks(node, config.sinks.alarms, problems)
    url = config.historian.url
    if url != "embedded" and not _unresolved(url) and _url(url, "http", "https") is None:
        place = node.get("historian")
        below = place.get("url") if place is not None else None
        _told(below, "'embedded', or http:// or https:// and an address, is expected", problems)
    if config.archive is not None:
        place = node.get("archive")
        _each(place.get("path") if place is not None else None, config.archive.path, _path_problem, problems)
        if place is not None and config.archive.keep < DAY:
            _told(place.get("keep"), "at least 1d is expected", problems)
    limits = node.get("limits")
    for key, least, most in (("devices", 1, 100_000_000), ("frame", 1, 16 << 20), ("depth", 1, 64)):
        below = limits.get(key) if limits is not None else None
        if below is not None and not least <= getattr(config.limits, key) <= most:
            problems.add(below, f"a number from {least} to {most} is expected")
    check_journal(node, config, problems)


def check_source_products(
    node: Node, config: PlantYaml, products: Collection[str], problems: Problems
) -> None:
    """Sources that name a product which is not there."""
    sources = node.get("sources")
    for name, source in config.sources.items():
        below = sources.get(name) if sources is not None else None
        place = below.get("product") if below is not None else None
        if place is not None and source.product is not None and source.product not in products:
            problems.add(place, f"no product '{source.product}'{nearest(source.product, products)}")


def _check_source(node: Node, source: SourceConfig, problems: Problems) -> None:
    if not isinstance(source, KafkaConfig):
        _told(node.get("device"), device_problem(source.device), problems)
        if source.topic is not None:
            _told(node.get("topic"), template_problem(source.topic, source.device), problems)
    positive = (
        *("max_frame", "max_payload", "max_inflight", "max_connections", "max_connections_per_peer"),
        *("max_body", "max_batch", "max_header", "header_timeout", "body_timeout", "commit_timeout"),
    )
    for key in positive:
        below = node.get(key)
        if below is not None and not below.masked and getattr(source, key, 1) < 1:
            problems.add(below, "a number above 0 is expected")
    if isinstance(source, MqttConfig):
        _check_mqtt(node, source, problems)
    elif isinstance(source, HttpConfig):
        _check_http(node, source, problems)
    elif isinstance(source, TcpConfig):
        _listen(node.get("listen"), source.listen, problems)
        _each(node.get("acknowledge"), source.acknowledge, _hex_problem, problems)
        if isinstance(source.framing, Delimiter) and not source.framing.delimiter:
            problems.add(node, "the delimiter is empty", key="framing")
        else:
            _check_framing(node, source, problems)
        _server_tls(node, source.tls, problems)
    elif isinstance(source, OpcuaConfig):
        _check_opcua(node, source, problems)
    elif isinstance(source, KafkaConfig):
        check_kafka_source(node, source, problems)
    else:
        check_files_source(node, source, problems)


def _check_opcua(node: Node, source: OpcuaConfig, problems: Problems) -> None:
    endpoint = node.get("endpoint")
    if endpoint is not None and not _unresolved(source.endpoint):
        url = _url(source.endpoint, "opc.tcp")
        if url is None:
            problems.add(endpoint, "an address such as opc.tcp://127.0.0.1:4840 is expected")
        elif "@" in url.netloc:
            problems.add(endpoint, "a user stands in 'username' and 'password', not in the address")
    if (source.nodes is None) == (source.browse is None):
        problems.add(node, "one of 'nodes' (a CSV file) and 'browse' says what is read")
    browse = _given(node, "browse")
    if browse is not None and source.browse is not None:
        _each(browse.get("root"), source.browse.root, node_problem, problems)
        for key in ("device", "depth"):
            if getattr(source.browse, key) < 1:
                _told(browse.get(key), "a number above 0 is expected", problems)
    for key in ("queue", "nodes_per_session", "publishing", "retry", "timeout"):
        if getattr(source, key) < 1:
            _told(node.get(key), "a number above 0 is expected", problems)
    if source.security != "none" and _given(node, "trust") is None:
        problems.add(node, "a folder 'trust' with the server's certificate is expected", key="security")
    if (_given(node, "cert_file") is None) != (_given(node, "key_file") is None):
        problems.add(node, "'cert_file' and 'key_file' go together")
    password = _given(node, "password")
    if password is not None and not password.masked:
        problems.warn(
            password, "a password in plain text is kept in the journal; write ${NAME} or ${file:PATH}"
        )
    if password is not None and _given(node, "username") is None:
        problems.add(node, "a password without 'username'", key="password")
    if password is not None and source.security == "none":
        problems.warn(password, "crosses the network in an unencrypted channel; give 'security'")


def check_source_files(node: Node, config: PlantYaml, files: Mapping[str, bytes], problems: Problems) -> None:
    """Files of the plant that sources name: the nodes of OPC UA servers."""
    sources = node.get("sources")
    for name, source in config.sources.items():
        below = sources.get(name) if sources is not None else None
        place = _given(below, "nodes") if below is not None else None
        if place is None or not isinstance(source, OpcuaConfig) or source.nodes is None:
            continue
        data = files.get(source.nodes)
        if data is None:
            told = "; it lies beside plant.yaml" if "/" in source.nodes else ""
            problems.add(place, f"cannot read the file '{source.nodes}' in the plant's folder{told}")
            continue
        for line, text in parse_nodes(data.decode("utf-8", "replace"))[1]:
            problems.found.append(Problem(source.nodes, line, 1, "", text))


def _check_framing(node: Node, source: TcpConfig, problems: Problems) -> None:
    """What the framer itself says: `framing[.key]: what`."""
    below = node.get("framing")
    if below is None or source.max_frame < 1:
        return
    try:
        framer(source.framing, source.max_frame)
    except ConfigError as error:
        where, _, what = str(error).partition(": ")
        place = below.get(where.partition(".")[2])
        problems.add(place if place is not None else below, what)


def _check_http(node: Node, source: HttpConfig, problems: Problems) -> None:
    listen = node.get("listen")
    _listen(listen, source.listen, problems)
    _server_tls(node, source.tls, problems)
    for one in node.get("headers") or ():
        _told(one, header_problem(str(one.value)), problems)
    kind, _, name = source.device.partition(":")
    if kind == "header" and name:
        _told(node.get("device"), header_problem(name), problems)
    keys = node.get("api_keys")
    for one, key in zip(keys if keys is not None and keys.is_list else (), source.api_keys, strict=False):
        if not one.masked:
            problems.warn(one, "a key in plain text is kept in the journal; write ${NAME} or ${file:PATH}")
        if not key:
            problems.add(one, "the key is empty")
    if listen is None or _unresolved(source.listen) or source.listen.startswith((*LOOPBACK, "[::1]")):
        return
    if not source.api_keys and source.ca_file is None:
        problems.warn(listen, "is open to the network; whoever reaches it can send frames: give api_keys")
    elif not source.tls:
        problems.warn(
            listen, "keys and frames cross the network unencrypted; give tls, cert_file and key_file"
        )


def _server_tls(node: Node, tls: bool, problems: Problems) -> None:
    """A listener's certificate: `tls: true` with cert_file and key_file, and nothing without it."""
    given = {key: _given(node, key) is not None for key in ("cert_file", "key_file", "ca_file")}
    if not tls:
        for key in (key for key, there in given.items() if there):
            problems.add(node, f"'{key}' goes with tls: true", key=key)
    elif not (given["cert_file"] and given["key_file"]):
        problems.add(node, "a server needs 'cert_file' and 'key_file'", key="tls")


def _check_mqtt(node: Node, source: MqttConfig, problems: Problems) -> None:
    _each(node.get("host"), source.host, _host_problem, problems)
    port = node.get("port")
    if port is not None and not 0 < source.port < 65_536 and not _unresolved(str(port.value)):
        problems.add(port, "a port from 1 to 65535 is expected")
    subscribe = node.get("subscribe")
    if source.sparkplug is None:
        if subscribe is None:
            problems.add(node, "'subscribe' is missing")
        elif subscribe.is_list and not source.subscribe:
            problems.add(subscribe, 'at least one topic filter is expected, e.g. ["devices/#"]')
    for one in subscribe if subscribe is not None and subscribe.is_list else ():
        _told(one, filter_problem(str(one.value)), problems)
    check_sparkplug_source(node, source, problems)
    password = _given(node, "password")
    if password is not None and not password.masked:
        problems.warn(
            password, "a password in plain text is kept in the journal; write ${NAME} or ${file:PATH}"
        )
    if password is not None and _given(node, "username") is None:
        problems.add(node, "a password without 'username'", key="password")
    tls = _given(node, "tls")
    if not source.tls and (tls is None or not tls.masked):
        for key in ("ca_file", "cert_file", "key_file"):
            if _given(node, key) is not None:
                problems.add(node, f"'{key}' goes with tls: true", key=key)


def _given(node: Node, key: str) -> Node | None:
    """The child under a key, if it says something."""
    child = node.get(key)
    return child if child is not None and child.value is not None else None


def _each(
    node: Node | None, text: str | None, check: Callable[[str], str | None], problems: Problems
) -> None:
    if node is not None and text is not None and not _unresolved(text):
        _told(node, check(text), problems)


def _path_problem(path: str) -> str | None:
    scheme, separator, rest = path.partition("://")
    if not path.strip():
        return "a folder is expected, or s3://bucket/prefix"
    if separator and (scheme != "s3" or not rest.partition("/")[0]):
        return f"'{path[:60]}' is no folder and no s3://bucket/prefix"
    return None


def _url(text: str, *schemes: str) -> SplitResult | None:
    """An address of one of the schemes with a host and a port that can be, or None."""
    try:
        url = urlsplit(text)
        return url if url.scheme in schemes and url.hostname and url.port != 0 else None
    except ValueError:  # a bracket alone, a port that is no number or beyond 65535
        return None


def _listen(node: Node | None, text: str, problems: Problems) -> None:
    _each(node, text, _listen_problem, problems)


def _host_problem(text: str) -> str | None:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        if not _HOST.match(text):
            return "a host alone is expected, e.g. 127.0.0.1 or broker.works; its port goes under 'port'"
    return None


def _listen_problem(text: str) -> str | None:
    try:
        listen_address(text)
    except ValueError:
        return "an address such as 127.0.0.1:7001 is expected"
    return None


def _hex_problem(text: str) -> str | None:
    try:
        return None if bytes.fromhex(text) else "at least one byte is expected"
    except ValueError:
        return 'bytes in hex are expected, e.g. "06"'


def _told(node: Node | None, text: str | None, problems: Problems) -> None:
    if node is not None and text is not None:
        problems.add(node, text)


def _unresolved(text: str) -> bool:
    return "${" in text


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
