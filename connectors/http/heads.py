"""What the head of a request says: whether it may come, where its frames belong, and under which name."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import OrderedDict
from typing import Any, Final

from connectors.http.bodies import Refused
from connectors.http.config import HttpConfig
from connectors.source import Where

ADDRESS_CHARS: Final = 1024
KEY_CHARS: Final = 255
KEYS_KNOWN: Final = 10_000  # newest idempotency keys whose bodies are remembered
PREFIX: Final = "/ingest/"


class Heads:
    """Reads heads of requests to one source, as Granian's RSGI gives them. All raise `Refused`."""

    def __init__(self, name: str, config: HttpConfig) -> None:
        self.name = name
        self._keys = [hashlib.sha256(key.encode()).digest() for key in config.api_keys]
        kind, _, named = config.device.partition(":")
        wanted = [*config.headers, *([named] if kind == "header" else [])]
        self._wanted = tuple(dict.fromkeys(name.lower() for name in wanted))
        self._peer = kind == "peer"
        self._known: OrderedDict[str, bytes] = OrderedDict()

    def address(self, scope: Any) -> tuple[str, int]:
        """Topic and port of the frames of a request that may come."""
        path = scope.path
        if self._keys:
            self._authorize(scope.headers)
        elif scope.headers.get("origin"):
            raise Refused(403, "requests of web pages are not taken without an API key")
        if not path.startswith(PREFIX):
            raise Refused(404, "there is nothing here; POST /ingest/{address}")
        if scope.method != "POST":
            raise Refused(405, f"{scope.method} is not taken; POST /ingest/{{address}}")
        topic = path[len(PREFIX) :]
        if not topic or len(topic) > ADDRESS_CHARS or "\ufffd" in topic or not topic.isprintable():
            raise Refused(400, f"the address is 1 to {ADDRESS_CHARS} printable characters of UTF-8")
        return topic, _port(scope.query_string)

    def _authorize(self, headers: Any) -> None:
        """Every key is compared, in constant time."""
        given = headers.get("x-api-key", "")
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        if not given and scheme.lower() == "bearer":
            given = rest.strip()
        digest = hashlib.sha256(given.encode()).digest()
        if not sum(hmac.compare_digest(digest, key) for key in self._keys):
            raise Refused(401, "an API key is expected: X-API-Key, or Authorization: Bearer")

    def headers(self, scope: Any, csv: str | None) -> tuple[tuple[str, str], ...]:
        """Those of a request's frames. csv: the line that names the columns of its rows."""
        found = [(name, value) for name in self._wanted if (value := scope.headers.get(name)) is not None]
        if self._peer:
            found.append(("peer", scope.client.rpartition(":")[0]))
        if csv is not None:
            found.append(("csv", csv))
        return tuple(found)

    def append_name(self, key: str, where: Where, body: bytes) -> str:
        """The append's name under an Idempotency-Key. The body is part of it: another body under a key that
        the memory here has lost is another append, so that nothing is lost in silence."""
        if not 0 < len(key) <= KEY_CHARS:
            raise Refused(400, f"Idempotency-Key has 1 to {KEY_CHARS} characters")
        topic, port, headers = where
        text = json.dumps([self.name, key, topic, port])
        digest = hashlib.sha256(json.dumps([text, headers]).encode() + b"\0" + body).digest()
        before = self._known.setdefault(text, digest)
        if before != digest:
            raise Refused(422, "this Idempotency-Key came with another body or other headers")
        self._known.move_to_end(text)
        if len(self._known) > KEYS_KNOWN:
            self._known.popitem(last=False)
        return f"http:{self.name}:{digest.hex()}"


def _port(query: str) -> int:
    """The frame's sub-address of `port=N`, -1 where the query is empty. Raises `Refused`."""
    if not query:
        return -1
    name, _, text = query.partition("=")
    if name != "port" or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Refused(400, "the query is ?port=N or nothing")
    return int(text)
