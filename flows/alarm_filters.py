"""Which alarms are meant: the filters of `penstock alarms` and of `GET /api/alarms`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Severity = Literal["critical", "high", "medium", "low", "info"]
State = Literal["active", "unacknowledged", "shelved", "suppressed", "latched", "out-of-service"]

SEVERITIES: Final[tuple[str, ...]] = get_args(Severity)
STATES: Final[tuple[str, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class AlarmFilters:
    """None: any. state: one of STATES, after the newest event of an occurrence (of an event: after it)."""

    rule: str | None = None
    device: str | None = None
    severity: str | None = None
    state: str | None = None
    product: str | None = None
    site: str | None = None

    def take(self, row: Mapping[str, Any]) -> bool:
        """Whether an open alarm, as `Views.open_alarms` gives it, is meant."""
        return self._take(row, row)

    def take_event(self, event: Mapping[str, Any]) -> bool:
        """Whether an event (FORMATS section 5) is meant."""
        data = event["data"]
        return self._take(data, data["state"])

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The open alarms that are meant."""
        return [dict(row) for row in rows if self.take(row)]

    def events(self, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The events that are meant."""
        return [dict(event) for event in events if self.take_event(event)]

    def query(self) -> dict[str, str]:
        """As query parameters of `GET /api/alarms`."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in found.items() if value is not None}

    def _take(self, data: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
        return (
            (self.rule is None or data["ruleId"] == self.rule)
            and (self.device is None or data["device_id"] == self.device)
            and (self.severity is None or data["severity"] == self.severity)
            and (self.product is None or data["productId"] == self.product)
            and (self.site is None or data["site_id"] == self.site)
            and (self.state is None or is_in(state, self.state))
        )


def is_in(state: Mapping[str, Any], word: str) -> bool:
    """Whether a state (`data.state` of an event) is one of STATES."""
    if word == "unacknowledged":
        return not state["acknowledged"]
    if word == "shelved":
        return state["shelved_until"] is not None
    return bool(state[word.replace("-", "_")])


def state_words(state: Mapping[str, Any]) -> list[str]:
    """What people are told of a state: `active` or `cleared` first, then whatever else holds."""
    words = ["active" if state["active"] else "cleared"]
    words += [word for word in STATES[1:] if is_in(state, word)]
    return words
