"""The typed plant folder: what `load_plant` gives when every file of a plant is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.journal.kafka_config import JournalConfig
from connectors.kafka.config import KafkaAlarmsConfig, KafkaConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcuaConfig
from connectors.shards import By
from connectors.tcp.config import TcpConfig
from flows.plant_vectors import Vector
from operators.attributes import PastTables
from operators.contract.spec import Contract, Metric
from operators.decode.spec import DecodeSpec
from operators.document import Node
from operators.expression.formula_spec import Formulas
from operators.spec import DAY, MINUTE, Duration, Expression, Size
from operators.state.spec import AasMapping
from operators.windows.spec import Window
from rules.spec import Rule

SourceConfig = MqttConfig | TcpConfig | HttpConfig | FilesConfig | OpcuaConfig | KafkaConfig


class Product(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One products/*.yaml."""

    productId: str
    version: int
    decode: DecodeSpec
    metrics: dict[str, Metric]  # in file order
    topics: list[str] = msgspec.field(default_factory=list)
    expected_every: Duration | None = None
    live_within: Duration = 15 * MINUTE
    params: dict[str, float | str] = msgspec.field(default_factory=dict)
    contract: Contract = msgspec.field(default_factory=Contract)
    windows: list[Window] = msgspec.field(default_factory=list)
    aas: AasMapping | None = None
    vectors: list[Vector] = msgspec.field(default_factory=list)


class Send(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The payload of the control request."""

    json: Any


class Verify(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What must come to hold, and how soon, for the action to have succeeded."""

    condition: Expression
    within: Duration


class Action(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One actions/*.yaml."""

    actionId: str
    send: Send
    result_within: Duration | None = None
    verify: Verify | None = None
    interlock: Expression | None = None  # nothing is sent unless it holds
    limit: str | None = None  # so many in so long: 1/10m
    retries: int = 0
    on_failure: Literal["escalate"] | None = None


class DevicesConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """source: whether a row that a changed file has no more is gone (file) or stays (stream). unknown: what
    becomes of frames of devices that master data do not know; hold_for: how long they are held."""

    source: Literal["file", "stream"] = "file"
    unknown: Literal["reject", "hold", "accept"] = "reject"
    hold_for: Duration = 7 * DAY


class Sinks(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    alarms: KafkaAlarmsConfig = msgspec.field(default_factory=KafkaAlarmsConfig)


class HistorianKeep(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    raw: Duration = 10 * DAY
    windows: Duration = 400 * DAY


class Historian(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    url: str = "embedded"
    listen: str = "127.0.0.1:8123"
    keep: HistorianKeep = msgspec.field(default_factory=HistorianKeep)
    backlog: Size = 4_000_000_000


class ServerConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    listen: str = "127.0.0.1:8080"


class ArchiveConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """path: below the data directory, absolute, or s3://; keep: by the journal's clock."""

    path: str = "archive/"
    keep: Duration = 400 * DAY


class Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """held, held_bytes: frames of unknown devices that wait at once, and their bytes."""

    devices: int = 100_000
    frame: Size = 1_000_000
    depth: int = 64
    held: int = 100_000
    held_bytes: Size = 16_000_000


class Shards(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    count: int = 1
    by: By = "device_id"


class PlantYaml(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """plant.yaml."""

    plant: str
    timezone: str = "UTC"
    sources: dict[str, SourceConfig]
    devices: DevicesConfig = msgspec.field(default_factory=DevicesConfig)
    journal: JournalConfig = msgspec.field(default_factory=JournalConfig)
    archive: ArchiveConfig | None = None
    sinks: Sinks = msgspec.field(default_factory=Sinks)
    historian: Historian = msgspec.field(default_factory=Historian)
    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
    limits: Limits = msgspec.field(default_factory=Limits)
    shards: Shards = msgspec.field(default_factory=Shards)
    actions: Literal["disabled"] = "disabled"


@dataclass(slots=True, eq=False)
class MasterData:
    """Rows of devices.csv by device_id, in file order; every column is a text. columns: its header, and
    with `source: stream` the columns that FORMATS names, and those of the tables that devices are joined
    with. dated: by table and key, further rows of a file, each from its `valid_from` on. past: what rows
    were as of event time, where changes are known."""

    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    sites: dict[str, dict[str, str]] = field(default_factory=dict)
    customers: dict[str, dict[str, str]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    dated: Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]] = field(default_factory=dict)
    past: PastTables = field(default_factory=dict)

    def former(self) -> Iterator[Mapping[str, str]]:
        """Rows of devices that counted once, or will from a day on."""
        for later in self.dated.get("devices", {}).values():
            yield from later
        for past in self.past.get("devices", {}).values():
            yield from (one.row for one in past)

    def tables(self) -> dict[str, dict[str, dict[str, str]]]:
        """Rows by table, as changes of master data call them."""
        return {"devices": self.devices, "sites": self.sites, "customers": self.customers}


@dataclass(slots=True, eq=False)
class Plant:
    """A plant folder that has passed every check.

    sha256: of the bundle, i.e. of every file's path and bytes. files: the bundle itself, as it
    is journaled (no environment value and no secret is in it).
    """

    name: str
    timezone: str
    sha256: str
    files: Mapping[str, bytes]
    products: dict[str, Product]
    rules: list[Rule]
    master: MasterData
    sources: dict[str, SourceConfig]
    devices: DevicesConfig
    sinks: Sinks
    historian: Historian
    server: ServerConfig
    journal: JournalConfig
    limits: Limits
    archive: ArchiveConfig | None = None
    shards: Shards = field(default_factory=Shards)
    actions: dict[str, Action] = field(default_factory=dict)  # by actionId
    formulas: Formulas = field(default_factory=Formulas)
    tests: dict[str, list[Node]] = field(default_factory=dict)  # tests/*.yaml: file -> documents
