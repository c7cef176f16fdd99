"""Keys of a source of kind opcua."""

from __future__ import annotations

from typing import Literal

import msgspec

from operators.spec import MILLISECOND, SECOND, Duration, Size

POLICIES = ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")


class Browse(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Variables below a node of the server. Patterns are of paths from the root, with `*` and `?`."""

    root: str = "i=85"  # the Objects folder
    include: list[str] = msgspec.field(default_factory=lambda: ["*"])
    exclude: list[str] = msgspec.field(default_factory=list)
    device: int = 1  # which part of the path, from 1, is the device; the rest is the metric
    depth: int = 10


class OpcuaConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="opcua"):
    """An OPC UA server and which of its nodes are read."""

    endpoint: str
    nodes: str | None = None  # a CSV file of the plant's folder
    browse: Browse | None = None
    publishing: Duration = 500 * MILLISECOND
    sampling: Duration = 500 * MILLISECOND  # of nodes that say nothing of their own
    queue: int = 10  # values that the server keeps of each node between two publishings
    nodes_per_session: int = 10_000
    enumerations: Literal["numbers", "texts"] = "numbers"
    security: Literal["none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "none"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    cert_file: str | None = None  # own certificate; default: one is made at the first start
    key_file: str | None = None
    trust: str | None = None  # folder of certificates of servers, or of those that sign them
    username: str | None = None
    password: str | None = None
    timeout: Duration = 10 * SECOND  # of an answer
    retry: Duration = 30 * SECOND  # nodes that the server does not have are asked for again
    silent_after: Duration = 60 * SECOND
    device: str = "topic"
    topic: str | None = None
    product: str | None = None
    max_frame: Size = 1_000_000
