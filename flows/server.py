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
from pathlib import Path
from typing import Annotated, Any

from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, Response, get
from litestar.openapi.config import OpenAPIConfig
from litestar.params import Parameter

from flows.aas_api import AAS_HANDLERS
from flows.address import split_address
from flows.metrics import PlantCollector, render
from flows.status import StatusThread, read_status
from flows.views import Views

STALE_S = 10.0  # a status older than this: the process hangs


@get("/health/live", sync_to_thread=False)
def live() -> dict[str, str]:
    """The server answers."""
    return {"status": "ok"}


@get("/health/ready", sync_to_thread=True)
def ready(views: Views) -> Response[dict[str, Any]]:
    """Each component's state; 503 while any is not ready."""
    body = readiness(views.data)
    return Response(body, status_code=200 if body["ready"] else 503)


@get("/metrics", sync_to_thread=True, media_type="text/plain; version=0.0.4")
def metrics(views: Views) -> bytes:
    """Prometheus metrics of all processes."""
    return render(PlantCollector(read_status(views.data), views.ledger(), views.rejects_by_reason()))


@get("/api/alarms", sync_to_thread=True)
def alarms(views: Views, history: bool = False, limit: Limit = 1000) -> list[dict[str, Any]]:
    """Open alarms; `history`: the newest events instead."""
    return views.alarm_history(limit) if history else views.open_alarms()[:limit]


@get("/api/devices", sync_to_thread=True)
def devices(views: Views) -> list[dict[str, Any]]:
    """Devices and when they were last heard."""
    return views.devices()


@get("/api/devices/{device_id:str}/state", sync_to_thread=True)
def device_state(views: Views, device_id: str) -> Response[Any]:
    """Newest value, quality, time and position of each metric of a device."""
    found = views.state(device_id)
    if found is None:
        return Response({"error": f"no device '{device_id}' has been heard"}, status_code=404)
    return Response(found)


@get("/api/rejects", sync_to_thread=True)
def rejects(views: Views, limit: Limit = 100, reason: str | None = None) -> list[dict[str, Any]]:
    """The newest rejects that are still in the output log."""
    return views.rejects(limit, reason)


@get("/api/rules", sync_to_thread=True)
def rules(views: Views) -> list[dict[str, Any]]:
    """Rules of the applied plant."""
    return views.rules()


@get("/api/status", sync_to_thread=True)
def status(views: Views) -> dict[str, Any]:
    """What every process last told about itself, and the ledger."""
    return {"components": read_status(views.data), "ledger": views.ledger_rows()}


Limit = Annotated[int, Parameter(ge=1, le=10_000)]


def readiness(data: Path) -> dict[str, Any]:
    """{"ready": bool, "components": {name: {"state", "detail"}}} from the status files."""
    found = read_status(data)
    now = time.time()
    components: dict[str, dict[str, Any]] = {}
    for name, child in found.get("supervisor", {}).get("components", {}).items():
        body = found.get(name, {})
        state = str(body.get("state") or body.get("status", {}).get("state") or child["state"])
        detail = str(body.get("detail") or body.get("status", {}).get("detail") or "")
        if child["state"] != "running":
            state, detail = child["state"], f"ended {child['restarts'] + 1} times; see logs/{name}.jsonl"
        elif body.get("pid") not in (None, child["pid"]):
            state = "starting"
        elif "updated_ms" in body and now - body["updated_ms"] / 1000 > STALE_S:
            state, detail = "hanging", f"no sign of life for {now - body['updated_ms'] / 1000:.0f} s"
        components[name] = {"state": state, "detail": detail}
    good = {"running", "connected", "ready", "silent", "idle", "sending"}
    return {
        "ready": bool(components) and all(c["state"] in good for c in components.values()),
        "components": components,
    }


def make_app(data: Path) -> Litestar:
    """The application over a data directory."""
    views = Views(data)

    async def provide_views() -> Views:
        return views

    from litestar.di import Provide

    return Litestar(
        route_handlers=[
            live,
            ready,
            metrics,
            alarms,
            devices,
            device_state,
            rejects,
            rules,
            status,
            *AAS_HANDLERS,
        ],
        dependencies={"views": Provide(provide_views)},
        openapi_config=OpenAPIConfig(title="Penstock", version="0.1.0", path="/docs"),
        exception_handlers={Exception: on_error},
        request_max_body_size=1 << 20,
    )


def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """An AAS Result (IDTA-01002, section "Result") for every error, and a log line for ours."""
    code = int(getattr(error, "status_code", 500))
    text = str(getattr(error, "detail", "") or error)
    if code >= 500:
        log("error", path=request.url.path, error=f"{type(error).__name__}: {error}")
        text = "internal error; see the server's log"
    message = {"code": str(code), "messageType": "Error", "text": text, "correlationId": "", "timestamp": ""}
    return Response({"messages": [message]}, status_code=code)


def log(event: str, **fields: Any) -> None:
    """One JSON line on stderr."""
    line = {"ts": round(time.time(), 3), "component": "server", "event": event, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)


async def serve(data: Path, listen: str) -> None:
    """Serve until SIGTERM."""
    host, port = split_address(listen)
    server = Server(make_app(data), host, port, interface=Interfaces.ASGI, log_enabled=False)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    state = StatusThread(data, "server", lambda: {"state": "running", "listen": listen})
    state.start()
    log("listening", address=listen)
    serving = asyncio.ensure_future(server.serve())
    waiting = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        state.close()
        serving.result()
        raise OSError(f"the server on {listen} ended by itself")
    server.stop()
    await asyncio.wait({serving}, timeout=5)
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
    sys.exit(main())
