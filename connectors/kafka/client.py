"""What every client of one Kafka target has in common: its settings, and its errors as ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException

from connectors.errors import AuthError, ConfigError, ConnectError
from connectors.kafka.config import KafkaAlarmsConfig, KafkaClientConfig

_LOGIN: Final = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM}
)
_FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


class KafkaTarget(msgspec.Struct, kw_only=True):
    """What the supervisor tells the drainer that concerns this target."""

    plant: str = ""
    shard: int | None = None  # whose output log it drains, where there are several
    alarms: KafkaAlarmsConfig


def kafka_target(config: Mapping[str, Any]) -> KafkaTarget:
    """The typed form of what the drainer is told. Raises `ConfigError`."""
    try:
        return msgspec.convert(config, KafkaTarget)
    except msgspec.ValidationError as error:
        raise ConfigError(f"sinks.alarms: {error}") from error


def client_config(config: KafkaClientConfig, name: str = "penstock-alarms") -> dict[str, Any]:
    """What every client is given; name: its own, for the brokers' logs and quotas. It holds the
    password: never to be logged."""
    made: dict[str, Any] = {
        "bootstrap.servers": config.bootstrap,
        "client.id": name,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,  # a flush is several small requests, one a partition
        "logger": logging.getLogger("penstock.kafka"),
        "security.protocol": config.security_protocol,
    }
    if config.security_protocol.endswith("SSL"):
        made["ssl.ca.location"] = config.ca_file or "probe"
        if config.cert_file:
            made["ssl.certificate.location"] = config.cert_file
            made["ssl.key.location"] = config.key_file or config.cert_file
    if config.security_protocol.startswith("SASL"):
        made["sasl.mechanism"] = config.sasl_mechanism
        made["sasl.username"] = config.username or ""
        made["sasl.password"] = config.password or ""
    return made


def made_client(
    kind: Callable[[dict[str, Any]], Any], settings: Mapping[str, Any], where: str = "sinks.alarms"
) -> Any:
    """A producer, consumer or admin client. where: the path of its keys in plant.yaml. Raises
    `ConfigError`, e.g. for a ca_file that cannot be read."""
    try:
        return kind(dict(settings))
    except KafkaException as error:
        raise ConfigError(f"{where}: {error.args[0].str()}") from error


def told(error: BaseException | KafkaError | None) -> ConnectError:
    """A Kafka error as ours. confluent-kafka leaves some calls with a `SystemError` whose cause is
    the `KafkaException`."""
    if isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    cause: Any = error.args[0] if isinstance(error, KafkaException) and error.args else error
    text = cause.str() if isinstance(cause, KafkaError) else str(cause)
    code = cause.code() if isinstance(cause, KafkaError) else None
    if code in _LOGIN:
        return AuthError(f"Kafka refuses the login: {text}")
    if code in _FORBIDDEN:
        return AuthError(
            f"Kafka does not permit it: {text} (penstock check PLANT --connect says what to permit)"
        )
    return ConnectError(f"Kafka: {text}")
