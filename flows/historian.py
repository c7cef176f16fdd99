"""The historian process: the embedded ClickHouse (chDB) behind ClickHouse's HTTP interface.

    GET /ping                      Ok.
    GET|POST /?query=...           a statement; results in the format asked for
    POST / (body)                  a statement, or the data of the INSERT in the URL

It runs apart from the flow, because chDB's threads and the flow's worker would cost each other
their latency, and because one process may open a chDB folder. It listens on loopback unless the
plant says otherwise, and takes no request that a web page made (Origin, foreign Host).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, Response, route

from connectors.clickhouse.embedded import (
    MAX_BODY,
    Engine,
    EngineError,
    deflate,
    inflate,
    read_statement,
)
from connectors.json_logs import log_as_json
from connectors.serving import Serving
from flows.address import split_address
from flows.ending import leave
from flows.status import StatusThread

log = logging.getLogger("historian")

STATUS = {60: 404, 81: 404, 62: 400, 36: 400, 47: 404, 46: 404, 53: 400, 516: 401, 307: 413}  # else 500
LOCAL = ("127.0.0.1", "localhost", "[::1]")


class Historian:
    """What the handlers share."""

    def __init__(self, engine: Engine, listen: str) -> None:
        self.engine = engine
        self.hosts = {f"{name}:{listen.rpartition(':')[2]}" for name in LOCAL} | {*LOCAL, listen}
        self.any_host = listen.rpartition(":")[0] not in (*LOCAL, "::1")
        self.statements = 0
        self.failed = 0
        self.seconds = 0.0

    def describe(self) -> dict[str, Any]:
        """For health and metrics."""
        return {
            "state": "running",
            "metrics": {
                "historian_statements_total": self.statements,
                "historian_failed_total": self.failed,
                "historian_seconds_total": round(self.seconds, 3),
            },
        }

    def refusal(self, request: Request[Any, Any, Any]) -> str | None:
        """Why a request is not taken: it comes from a web page, or for another host's name."""
        if request.headers.get("origin"):
            return "requests of web pages are not taken"
        host = request.headers.get("host", "")
        if not self.any_host and host and host not in self.hosts:
            return f"this is not {host}"
        return None

    def answer(self, arguments: dict[str, str], body: bytes, headers: Any) -> Response[bytes]:
        """Run one request; every failure is ClickHouse's error answer."""
        began = time.perf_counter()
        self.statements += 1
        query_id = arguments.get("query_id") or str(uuid.uuid4())
        common = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "penstock",
        }
        try:
            plain = inflate(body, headers.get("content-encoding", "").strip().lower())
            result, form = self.engine.run(read_statement(arguments, plain))
        except EngineError as error:
            self.failed += 1
            common["X-ClickHouse-Exception-Code"] = str(error.code)
            text = f"{error}\n".encode()
            return Response(text, status_code=STATUS.get(error.code, 500), headers=common)
        finally:
            self.seconds += time.perf_counter() - began
        took = time.perf_counter() - began
        common["X-ClickHouse-Format"] = form
        common["X-ClickHouse-Summary"] = json.dumps(
            {"result_bytes": str(len(result)), "elapsed_ns": str(int(took * 1e9))}
        )
        wanted = headers.get("accept-encoding", "") if arguments.get("enable_http_compression") == "1" else ""
        packed, encoding = deflate(result, wanted)
        if encoding:
            common["Content-Encoding"] = encoding
        return Response(packed, headers=common, media_type="application/octet-stream")


@route("/ping", http_method=["GET", "HEAD"], sync_to_thread=False)
def ping() -> Response[bytes]:
    """ClickHouse's sign of life."""
    return Response(b"Ok.\n", media_type="text/plain")


@route("/", http_method=["GET", "POST", "HEAD"], status_code=200)
async def statement(request: Request[Any, Any, Any]) -> Response[bytes]:
    """One statement."""
    historian: Historian = request.app.state.historian
    why = historian.refusal(request)
    if why is not None:
        return Response(f"{why}\n".encode(), status_code=403, media_type="text/plain")
    arguments = {name: request.query_params[name] for name in request.query_params}
    body = await request.body()
    if not body and "query" not in arguments:
        return Response(b"Ok.\n", media_type="text/plain")
    return await asyncio.to_thread(historian.answer, arguments, body, request.headers)


def make_app(historian: Historian) -> Litestar:
    """The application over an engine."""
    app = Litestar(
        route_handlers=[ping, statement],
        openapi_config=None,
        request_max_body_size=MAX_BODY,
        logging_config=None,
    )
    app.state.historian = historian
    return app


async def serve(data: Path, listen: str) -> None:
    """Serve until SIGTERM; raises OSError where it cannot listen."""
    host, port = split_address(listen)
    historian = Historian(Engine(data / "historian"), listen)
    server = Server(make_app(historian), host, port, interface=Interfaces.ASGI, log_enabled=False)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = Serving(server, host, port)
    waiting = asyncio.ensure_future(stop.wait())
    status = StatusThread(data, "historian", historian.describe)
    if await serving.accepts({waiting}):
        status.start()
        log.info("listening on %s", listen)
        await asyncio.wait({serving.task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if serving.task.done():
        status.close()
        raise OSError(f"cannot listen on {listen}; is the port in use?") from serving.task.exception()
    await serving.stop(5.0)
    historian.engine.close()
    status.close()
    log.info("stopped")


def main() -> int:
    """`python -m flows.historian DATA --listen HOST:PORT`"""
    parser = argparse.ArgumentParser(prog="python -m flows.historian")
    parser.add_argument("data", type=Path)
    parser.add_argument("--listen", default="127.0.0.1:8123")
    chosen = parser.parse_args()
    log_as_json("historian")
    try:
        asyncio.run(serve(chosen.data, chosen.listen))
    except OSError as error:
        log.error("%s", error)
        return 3
    return 0


if __name__ == "__main__":
    leave(main())
