"""The server process: AAS submodel values, alarms, devices, rejects, health and metrics over HTTP.

Litestar on Granian, reading the output store that the flow commits; it holds no state of its own,
so a value is as old as the store's last commit (at most half a second behind the flow) and a
restart loses nothing. It listens on loopback unless the plant says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, Response, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.params import FromPath, FromQuery, QueryParameter

from connectors.serving import Serving
from flows.aas_api import AAS_HANDLERS, BASE
from flows.address import split_address
from flows.alarm_api import ALARM_HANDLERS
from flows.ending import leave
from flows.health import readiness
from flows.master_api import MASTER_HANDLERS
from flows.metrics import metrics_text
from flows.params_api import PARAMS_HANDLERS
from flows.status import StatusThread
from flows.views import Views

LOCAL = ("127.0.0.1", "localhost", "[::1]")
MAX_BODY = 1 << 20


Limit = Annotated[int, QueryParameter(ge=1, le=10_000)]


@get("/health/live", sync_to_thread=False)
def live() -> dict[str, str]:
    """The server answers."""
    return {"status": "ok"}


@get("/health/ready", sync_to_thread=True)
def ready(views: NamedDependency[Views]) -> Response[dict[str, Any]]:
    """Each component's state; 503 while any is not ready."""
    body = readiness(views.data)
    return Response(body, status_code=200 if body["ready"] else 503)


@get("/metrics", sync_to_thread=True, media_type="text/plain; version=0.0.4")
def metrics(views: NamedDependency[Views]) -> bytes:
    """Prometheus metrics of all processes."""
    return metrics_text(views)


@get("/api/devices", sync_to_thread=True)
def devices(views: NamedDependency[Views]) -> list[dict[str, Any]]:
    """Devices and when they were last heard."""
    return views.devices()


@get("/api/devices/{device_id:str}/state", sync_to_thread=True)
def device_state(views: NamedDependency[Views], device_id: FromPath[str]) -> Response[Any]:
    """Newest value, quality, time and position of each metric of a device."""
    found = views.state(device_id)
    if found is None:
        return Response({"error": f"no device '{device_id}' has been heard"}, status_code=404)
    return Response(found)


@get("/api/devices/{device_id:str}/history", sync_to_thread=True)
def device_history(views: NamedDependency[Views], device_id: FromPath[str]) -> Response[Any]:
    """What master data say of a device as of event time, the newest first."""
    found = views.device_history(device_id)
    if found is None:
        return Response({"error": f"no device '{device_id}' in the master data"}, status_code=404)
    return Response(found)


@get("/api/state", sync_to_thread=True)
def states(views: NamedDependency[Views]) -> dict[str, dict[str, Any]]:
    """Newest values of every device that has been heard."""
    return views.states()


@get("/api/rejects", sync_to_thread=True)
def rejects(
    views: NamedDependency[Views], limit: Limit = 100, reason: FromQuery[str | None] = None
) -> list[dict[str, Any]]:
    """The newest rejects that are still in the output log."""
    return views.rejects(limit, reason)


@get("/api/rules", sync_to_thread=True)
def rules(views: NamedDependency[Views]) -> list[dict[str, Any]]:
    """Rules of the applied plant."""
    return views.rules()


@get("/api/status", sync_to_thread=True)
def status(views: NamedDependency[Views]) -> dict[str, Any]:
    """Health, ledger, rejects by reason, alarms by transition, lag, what waits for each target."""
    return views.status()


class Guard:
    """Refuses what a web page of elsewhere asks for: an Origin that is not this server, and on
    loopback a Host that is not loopback's (DNS rebinding)."""

    def __init__(self, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        self.hosts = {f"{name}:{port}" for name in LOCAL} | {*LOCAL, listen}
        self.any_host = host not in (*LOCAL, "::1")

    def __call__(self, request: Request[Any, Any, Any]) -> Response[dict[str, Any]] | None:
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if not self.any_host and host and host not in self.hosts:
            return failure(request, 403, f"this is not {host}")
        if origin and origin.partition("://")[2] != host:
            return failure(request, 403, "requests of web pages are not taken")
        return None


def make_app(data: Path, listen: str) -> Litestar:
    """The application over a data directory, for the address that it listens on."""
    views = Views(data)

    async def provide_views() -> Views:
        return views

    async def close(app: Litestar) -> None:
        views.close()

    return Litestar(
        route_handlers=[
            live,
            ready,
            metrics,
            devices,
            device_state,
            device_history,
            states,
            rejects,
            rules,
            status,
            *ALARM_HANDLERS,
            *MASTER_HANDLERS,
            *PARAMS_HANDLERS,
            *AAS_HANDLERS,
        ],
        dependencies={"views": Provide(provide_views)},
        openapi_config=OpenAPIConfig(title="Penstock", version="0.1.0", path="/docs"),
        exception_handlers={Exception: on_error},
        before_request=Guard(listen),
        on_shutdown=[close],
        request_max_body_size=MAX_BODY,
        logging_config=None,
    )


def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Every error as JSON, and a log line for ours."""
    code = int(getattr(error, "status_code", 500))
    text = str(getattr(error, "detail", "") or error)
    if isinstance(error, RecursionError):  # the JSON decoder's bound on nesting
        code, text = 400, "the body is nested too deeply"
    if code >= 500:
        log("error", path=request.url.path, error=f"{type(error).__name__}: {error}")
        text = "internal error; see the server's log"
    elif extra := getattr(error, "extra", None):
        text = "; ".join(f"{one.get('key')}: {one.get('message')}" for one in extra if isinstance(one, dict))
    return failure(request, code, text)


def failure(request: Request[Any, Any, Any], code: int, text: str) -> Response[dict[str, Any]]:
    """Under the AAS API a Result (IDTA-01002-3-1, "Result"), elsewhere {"error"}."""
    if not request.url.path.startswith(BASE):
        return Response({"error": text}, status_code=code, media_type="application/json")
    message = {
        "code": str(code),
        "correlationId": uuid.uuid4().hex,
        "messageType": "Error",
        "text": text,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return Response({"messages": [message]}, status_code=code, media_type="application/json")


def log(event: str, **fields: Any) -> None:
    """One JSON line on stderr."""
    line = {"ts": round(time.time(), 3), "component": "server", "event": event, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)


async def serve(data: Path, listen: str) -> None:
    """Serve until SIGTERM."""
    host, port = split_address(listen)
    server = Server(make_app(data, listen), host, port, interface=Interfaces.ASGI, log_enabled=False)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = Serving(server, host, port)
    waiting = asyncio.ensure_future(stop.wait())
    state = StatusThread(data, "server", lambda: {"state": "running", "listen": listen})
    if await serving.accepts({waiting}):
        state.start()
        log("listening", address=listen)
        await asyncio.wait({serving.task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if serving.task.done():
        state.close()
        raise OSError(f"cannot listen on {listen}; is the port in use?") from serving.task.exception()
    await serving.stop(5.0)
    state.close()
    log("stopped")


def main() -> int:
    """`python -m flows.server DATA --listen HOST:PORT`"""
    parser = argparse.ArgumentParser(prog="flows.server")
    parser.add_argument("data", type=Path)
    parser.add_argument("--listen", required=True)
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.data, arguments.listen))
    except OSError as error:
        log("failed", error=str(error))
        return 3
    return 0


if __name__ == "__main__":
    leave(main())
