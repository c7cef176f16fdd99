"""JSON log lines on stderr, one object a line, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable


class JsonLines(logging.Formatter):
    """`{"ts", "level", "component", "event"}`, ts in seconds since 1970; `error`: an exception's text.

    Every one of `secrets` is replaced by *** wherever it stands, in what a library logs too.
    """

    def __init__(self, component: str, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._component = component
        # the longest first: one may be a part of another
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "component": self._component,
            "event": self.hide(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = self.hide(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)

    def hide(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def log_as_json(component: str, secrets: Iterable[str] = ()) -> JsonLines:
    """All logging of this process from `info` on goes to stderr as JSON lines."""
    lines = JsonLines(component, secrets)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(lines)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return lines
