"""Keys of a source of kind http."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from connectors.source import is_reserved
from operators.spec import SECOND, Duration, Size


def header_problem(name: str) -> str | None:
    """What is wrong with the name of a request header that goes with a frame, if anything."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        return f"'{name[:60]}' is no name of a header"
    if name.lower() in ("authorization", "x-api-key") or is_reserved(name):
        return f"'{name}' is not taken from a request"
    return None


class HttpConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="http"):
    """An HTTP server that devices and programs post to: `POST /ingest/{address}`."""

    listen: str
    api_keys: list[str] = msgspec.field(default_factory=list)  # one of them must come along; none: open
    headers: list[str] = msgspec.field(default_factory=list)  # request headers that go with the frame
    arrays: Literal["split", "whole"] = "split"  # a JSON array: a batch, or one frame
    tls: bool = False
    cert_file: str | None = None
    key_file: str | None = None
    ca_file: str | None = None  # clients must show a certificate of this authority
    max_connections: int = 1_000
    max_header: Size = 16_000
    max_body: Size = 16_000_000  # as sent, and again as unpacked
    max_batch: int = 100_000  # frames of one request
    header_timeout: Duration = 30 * SECOND  # for the head of a request; also an idle connection's time
    body_timeout: Duration = 30 * SECOND
    commit_timeout: Duration = 30 * SECOND  # for the journal's commit, then 503
    silent_after: Duration = 60 * SECOND
    topic: str | None = None
    device: str = "topic"
    product: str | None = None
    carries: Literal["frames", "master"] = "frames"  # master: each frame is a change of master data
    max_frame: Size = 1_000_000
