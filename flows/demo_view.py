"""What the demo shows: a screen on a terminal, a line every five seconds elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from connectors.clickhouse.schema import telemetry_table
from flows.alarm_tables import alarms_table, event_line
from flows.look_tables import Rates, ledger_table, shown, summary_line, table
from flows.plant_file import Plant
from flows.views import Views
from operators.state.aas import submodel_ids

METRICS_SHOWN = 4
EVENTS_SHOWN = 6


class DemoView:
    """The demo's look at its plant; rates are from one call to the next."""

    def __init__(self, views: Views, plant: Plant, folder: Path) -> None:
        self.views = views
        self.footer = where_to_look(plant, folder, views.data)
        self._rates = Rates()
        self._told: set[str] = set()

    def screen(self, seconds: float, log_lines: list[str]) -> RenderableType:
        """Everything at a glance."""
        status = self.views.status()
        self._rates.update(status)
        unwell = [
            f"{name}: {one['state']} {one['detail']}"
            for name, one in status["health"]["components"].items()
            if not one["ready"]
        ]
        newest = self.views.alarm_history(4 * EVENTS_SHOWN)
        events = [event for event in newest if event["data"]["transition"] != "closed"][:EVENTS_SHOWN]
        alarms = self.views.open_alarms()
        parts: list[RenderableType] = [
            Text(f"penstock demo  {seconds:.0f} s   {summary_line(status, self._rates)}", "bold"),
            Text("all components are ready", "green")
            if not unwell and status["health"]["components"]
            else Text("; ".join(unwell) or "starting", "yellow"),
            "",
            ledger_table(status, self._rates),
            "",
            self._devices(),
            "",
            Text(f"open alarms: {len(alarms)}", "bold"),
            *([alarms_table(alarms)] if alarms else []),
            Text("newest alarm events", "bold"),
            *(Text(event_line(event)) for event in events),
            "",
            *(Text(line, "dim") for line in self.footer),
            "",
            *(Text(line, "cyan") for line in log_lines),
        ]
        return Group(*parts)

    def lines(self, seconds: float) -> list[str]:
        """What is new since the last call, for a place that is no terminal."""
        status = self.views.status()
        self._rates.update(status)
        fresh = [event for event in self.views.alarm_history(200) if event["id"] not in self._told]
        self._told.update(event["id"] for event in fresh)
        told = [
            f"        {event_line(event)}"
            for event in reversed(fresh)
            if event["data"]["transition"] in ("raised", "cleared")
        ]
        return [*told, f"{seconds:5.0f} s  {summary_line(status, self._rates)}"]

    def _devices(self) -> RenderableType:
        states = self.views.states()
        rows = []
        for device in self.views.devices():
            metrics = states.get(device["device_id"], {})
            values = [
                f"{name} {shown(one['value'])}" for name, one in metrics.items() if one["value"] is not None
            ]
            state = Text(", ".join(device["alarms"]), "red") if device["alarms"] else Text("ok", "green")
            heard = device["last_heard"]
            rows.append(
                [
                    device["device_id"],
                    device["name"] or "",
                    "never" if heard is None else heard[11:19],
                    state if heard is not None else Text("-"),
                    "  ".join(values[-METRICS_SHOWN:]),
                ]
            )
        return table(["device", "name", "heard", "alarms", "newest values"], rows)


def where_to_look(plant: Plant, folder: Path, data: Path) -> list[str]:
    """Addresses and commands to paste."""
    server = f"http://{plant.server.listen}"
    product = next(iter(plant.products.values()))
    mapped = next((one for one in plant.products.values() if one.aas is not None), None)
    counted = telemetry_table(product.productId)
    query = f"SELECT _device, count() FROM {counted} GROUP BY 1 ORDER BY 1"  # noqa: S608 - to be pasted
    lines = [f"alarms      tail -f {data / 'alarms.jsonl'}"]
    if plant.historian.url == "embedded":
        address = f"http://{plant.historian.listen}/"
        lines.append(f'historian   curl {address} --data-binary "{query} FORMAT PrettyCompact"')
    devices = [
        name
        for name, row in plant.master.devices.items()
        if mapped is not None and row["productId"] == mapped.productId
    ]
    if mapped is not None and mapped.aas is not None and devices:
        encoded = base64.urlsafe_b64encode(submodel_ids(mapped.aas, devices[0])[0].encode())
        lines.append(f"AAS         curl '{server}/api/v3.1/submodels/{encoded.decode().rstrip('=')}/$value'")
    lines.append(f"metrics     curl {server}/metrics     health  curl {server}/health/ready")
    lines.append(f"HTTP API    {server}/docs     top  penstock top {folder} --data {data}")
    return lines
