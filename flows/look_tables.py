"""What `devices`, `rejects`, `state`, `top` and the demo show on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]


def clock(text: str | None) -> str:
    """`2026-03-01T09:00:00.000Z` as `2026-03-01 09:00:00`."""
    return "" if text is None else text[:19].replace("T", " ")


def shown(value: object) -> str:
    """A value in a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()
) -> Table:
    """A plain table."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def history_table(rows: Iterable[Row]) -> Table:
    """What the rows of a device were, and are, as of event time."""
    return table(
        ["from", "until", "row"],
        (
            (
                one["from"] or "always",
                one["until"] or "",
                "  ".join(f"{name}={cell}" for name, cell in one["row"].items() if name != "device_id"),
            )
            for one in rows
        ),
    )


def devices_table(rows: Iterable[Row]) -> Table:
    """Devices and when they were last heard."""
    return table(
        [
            *("device", "product", "name", "hub", "site", "status", "last heard", "metrics", "missing"),
            *("held", "alarms"),
        ],
        (
            (
                row["device_id"],
                row["productId"] or "",
                row["name"] or "",
                row["hub_id"] or "",
                row["site_id"] or "",
                row["status"],
                clock(row["last_heard"]) or "never",
                str(row["metrics"]),
                str(row.get("missing") or ""),
                str(row.get("held") or ""),
                ", ".join(row["alarms"]),
            )
            for row in rows
        ),
        right=["metrics", "missing", "held"],
    )


def state_table(states: Mapping[str, Mapping[str, Row]]) -> Table:
    """Newest values."""
    return table(
        ["device", "metric", "value", "quality", "time"],
        (
            (device, name, shown(metric["value"]), metric["quality"], clock(metric["time"]))
            for device, metrics in states.items()
            for name, metric in metrics.items()
        ),
        right=["value"],
    )


def rejects_table(rows: Iterable[Row]) -> Table:
    """Rejects."""
    return table(
        ["time", "reason", "source", "device", "position", "message"],
        (
            (
                clock(row["ingest_time"]),
                row["reason"],
                row["source"] or "",
                row["device_id"] or row["topic"] or "",
                str(row["position"]),
                row["message"] or "",
            )
            for row in rows
        ),
        right=["position"],
    )


class Rates:
    """Frames a second by (source, product), from one status to the next."""

    def __init__(self) -> None:
        self._before: tuple[int, dict[tuple[str, str], int]] | None = None
        self.frames: dict[tuple[str, str], float] = {}

    def update(self, status: Row) -> None:
        """Take the next status of `Views.status`."""
        at = int(status["at_ms"])
        now = {(row["source"], row["productId"]): int(row.get("frames_in", 0)) for row in status["ledger"]}
        if self._before is not None and at > self._before[0]:
            seconds = (at - self._before[0]) / 1000
            before = self._before[1]
            self.frames = {key: max(0, count - before.get(key, 0)) / seconds for key, count in now.items()}
        self._before = (at, now)

    @property
    def total(self) -> float:
        """Frames a second in all."""
        return sum(self.frames.values())

    def rows(self) -> list[dict[str, Any]]:
        """As JSON objects."""
        return [
            {"source": source, "productId": product, "frames_per_second": round(rate, 3)}
            for (source, product), rate in sorted(self.frames.items())
        ]


LEDGER_COLUMNS: Final = {  # by heading, the ledger's term
    "frames": "frames_in",
    "rejected": "frames_rejected",
    "filtered": "frames_filtered",
    "held": "frames_held",
    "accepted": "readings_accepted",
    "late": "readings_late",
    "refused": "readings_rejected",
    "dup/retired": "readings_filtered",
}


def ledger_table(status: Row, rates: Rates) -> Table:
    """What came in, by source and product."""
    numbers = ["frames/s", *LEDGER_COLUMNS]
    return table(
        ["source", "product", *numbers],
        (
            (
                row["source"],
                row["productId"] or "-",
                f"{rates.frames.get((row['source'], row['productId']), 0.0):.1f}",
                *(f"{row.get(term, 0):,}" for term in LEDGER_COLUMNS.values()),
            )
            for row in status["ledger"]
        ),
        right=numbers,
    )


def health_table(status: Row) -> Table:
    """Components and how they are."""
    return table(
        ["component", "state", ""],
        (
            (
                name,
                Text(one["state"], "green" if one["ready"] else "bold red"),
                one["detail"],
            )
            for name, one in status["health"]["components"].items()
        ),
    )


def summary_line(status: Row, rates: Rates) -> str:
    """`12 devices, 12.0 frames/s, ...`"""
    alarms, lag = status["alarms"], status["lag"]
    return (
        f"{status['devices']} devices, {rates.total:.1f} frames/s, "
        f"alarms {alarms.get('raised', 0)} raised {alarms.get('cleared', 0)} cleared "
        f"{status['open_alarms']} open, lag {lag['entries']} entries {lag['seconds']:.1f} s"
    )
