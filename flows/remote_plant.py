"""A running plant by its server's address: what commands ask of it with `--url`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import click

from connectors.errors import ConfigError, PenstockError
from flows.alarm_actions import ANSWER_S
from flows.alarm_filters import AlarmFilters
from flows.shard_view import ALL_ALARMS
from flows.views import EventCursor

TIMEOUT_S: Final = 10.0
Command = TypeVar("Command", bound=Callable[..., Any])


class RemotePlant:
    """A plant by its server's address."""

    def __init__(self, url: str, token: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--url {url}: write http://host:port")
        self.url = url.rstrip("/")
        self.token = token

    def open_alarms(self, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        return list(self._get("/api/alarms", {"limit": 10_000, **filters.query()}))

    def alarm_history(self, limit: int, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        return list(self._get("/api/alarms", {"history": "true", "limit": limit, **filters.query()}))

    def alarm_events(
        self, after: EventCursor | None, limit: int, filters: AlarmFilters = ALL_ALARMS
    ) -> tuple[EventCursor, list[dict[str, Any]]]:
        asked: dict[str, Any] = {"limit": limit} if after is None else {"limit": limit, "after": after}
        found = self._get("/api/alarms/events", asked)
        return found["last"], filters.events(found["events"])

    def shadow_events(self, limit: int, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        return list(self._get("/api/alarms", {"shadow": "true", "limit": limit, **filters.query()}))

    def find_alarms(self, prefix: str) -> list[dict[str, Any]]:
        return list(self._get("/api/alarms/find", {"prefix": prefix}))

    def act(self, alarm_id: str, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST an operator's action: the flow's answer, accepted or refused. Raises `ConfigError`
        where the server refuses what is asked, `PenstockError` where nothing was or will be done."""
        return dict(self._post(f"/api/alarms/{quote(alarm_id, safe='')}/{action}", body))

    def change_master(self, changes: Sequence[Any], by: str, why: str) -> dict[str, Any]:
        """POST changes of master data: the flow's answer. Raises as `act`."""
        return dict(self._post("/api/master", {"changes": changes, "by": by, "why": why}))

    def master(self, table: str) -> list[dict[str, str]]:
        return list(self._get(f"/api/master/{table}"))

    def params(self) -> list[dict[str, Any]]:
        return list(self._get("/api/params"))

    def set_params(self, device: str, values: Mapping[str, Any], by: str, why: str) -> list[dict[str, Any]]:
        """POST parameters of a device, None for those that are taken back: the flow's answers. Raises as
        `act`."""
        body = {"device_id": device, "values": values, "by": by, "why": why}
        return list(self._post("/api/params", body)["answers"])

    def history(self) -> list[dict[str, Any]]:
        return list(self._get("/api/history"))

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What a POST answers, be it accepted or refused."""
        request = self._request(path)
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
        try:
            with urlopen(request, timeout=ANSWER_S + TIMEOUT_S) as answer:  # noqa: S310 - see `_request`
                return dict(json.load(answer))
        except HTTPError as error:
            told = _json_of(error)
            if error.code == 409 and "accepted" in told:
                return told
            text = str(told.get("error", error.reason))
            if error.code in (400, 404):
                raise ConfigError(text) from error
            raise PenstockError(f"{self.url}{path} answers {error.code}: {text}") from error
        except (URLError, OSError, ValueError) as error:
            raise self._away(error) from error

    def alarm_figures(self, start_ms: int | None, end_ms: int | None) -> dict[str, Any]:
        asked = {name: at for name, at in (("from", start_ms), ("to", end_ms)) if at is not None}
        return dict(self._get("/api/alarms/stats", asked))

    def devices(self) -> list[dict[str, Any]]:
        return list(self._get("/api/devices"))

    def state(self, device_id: str) -> dict[str, Any] | None:
        found = self._get(f"/api/devices/{quote(device_id, safe='')}/state", missing=True)
        return None if found is None else dict(found)

    def device_history(self, device_id: str) -> list[dict[str, Any]] | None:
        found = self._get(f"/api/devices/{quote(device_id, safe='')}/history", missing=True)
        return None if found is None else list(found)

    def states(self) -> dict[str, dict[str, Any]]:
        return dict(self._get("/api/state"))

    def rejects(self, limit: int, reason: str | None = None) -> list[dict[str, Any]]:
        asked: dict[str, Any] = {"limit": limit, **({"reason": reason} if reason else {})}
        return list(self._get("/api/rejects", asked))

    def status(self) -> dict[str, Any]:
        return dict(self._get("/api/status"))

    def _get(self, path: str, query: Mapping[str, Any] | None = None, *, missing: bool = False) -> Any:
        request = self._request(f"{path}{'?' + urlencode(query) if query else ''}")
        try:
            with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - see `_request`
                return json.load(answer)
        except HTTPError as error:
            if missing and error.code == 404:
                return None
            raise PenstockError(f"{self.url}{path} answers {error.code} {error.reason}") from error
        except (URLError, OSError, ValueError) as error:
            raise self._away(error) from error

    def _request(self, path: str) -> Request:
        request = Request(self.url + path)  # noqa: S310 - http(s) alone, see `__init__`
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        return request

    def _away(self, error: Exception) -> PenstockError:
        reason = getattr(error, "reason", None) or error
        return PenstockError(f"{self.url} does not answer: {reason}; is the plant running?")


def _json_of(error: HTTPError) -> dict[str, Any]:
    """The JSON object that an error came with; {} where it is none."""
    with suppress(OSError, ValueError):
        body = json.load(error)
        if isinstance(body, dict):
            return body
    return {}


def no_url(why: str) -> Callable[[Command], Command]:
    """A `--url` that says why there is none."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"--url: {why}")

    return click.option("--url", hidden=True, expose_value=False, is_eager=True, callback=refuse)
