"""Which processes a plant is made of, and what each of them is told: the whole table.

`penstock apply` plans with it, the supervisor starts by it. What a process reads only at its start is
its `start`: where that differs between two plants, the process has to be started again. The rest of
a plant reaches the processes while they run: the flow by the journal, the server by its reader, the
historian's drainer by the records themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from flows.plant_file import ArchiveConfig, Plant, SourceConfig

JOURNAL, FLOW, HISTORIAN, DRAINER, SERVER, RECEIVER = range(6)

# keys of a source that decoding alone looks at, so that a change of them is live
_DECODED: Final[Mapping[str, tuple[str, ...]]] = {
    "mqtt": ("topic", "product"),
    "tcp": ("topic", "product"),
    "http": ("topic", "product"),
    "opcua": ("topic", "product"),
    "files": ("topic", "product", "live"),
}


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `rank`: it starts in that order; stopping goes the other way. arguments: behind
    the data directory. file, body: its configuration, written to `run/FILE` for the owner alone.
    start: of all that, what counts at its start."""

    name: str
    module: str
    rank: int
    arguments: tuple[str, ...] = ()
    file: str | None = None
    body: Any = None
    start: Any = None

    def starts_like(self, other: Component) -> bool:
        """Whether the same process serves both."""
        mine, others = (self.module, self.arguments, self.start), (other.module, other.arguments, other.start)
        return mine == others


def components(plant: Plant, folder: Path | None = None) -> dict[str, Component]:
    """The processes of a plant by name, in the order of their start. folder: the plant's, for the
    relative paths of sources."""
    found = [
        Component(
            name="journal",
            module="connectors.journal.process",
            rank=JOURNAL,
            arguments=(
                *("--max-bytes", str(plant.journal.max)),
                *(("--archived",) if plant.archive is not None else ()),
            ),
        ),
        Component(name="flow", module="flows.flow", rank=FLOW),
    ]
    if plant.archive is not None:
        found.append(_archiver(plant, plant.archive))
    if plant.historian.url == "embedded":
        listen = ("--listen", plant.historian.listen)
        found.append(Component(name="historian", module="flows.historian", rank=HISTORIAN, arguments=listen))
    found.extend(_drainers(plant))
    listen = ("--listen", plant.server.listen)
    found.append(Component(name="server", module="flows.server", rank=SERVER, arguments=listen))
    found.extend(_receiver(plant, name, config, folder) for name, config in plant.sources.items())
    return {component.name: component for component in found}


def targets(plant: Plant) -> list[str]:
    """What the output log is drained to."""
    return ["alarms-file", "historian", *(["kafka"] if plant.sinks.alarms.bootstrap else [])]


def _archiver(plant: Plant, archive: ArchiveConfig) -> Component:
    body = {**msgspec.to_builtins(archive), "journal_bytes": plant.journal.max}
    return Component(
        name="archiver", module="flows.archiver", rank=DRAINER, file="archive.json", body=body, start=body
    )


def _drainers(plant: Plant) -> list[Component]:
    historian = {
        "historian": plant.historian,
        "products": {
            product.productId: [[metric.name, metric.type] for metric in product.metrics.values()]
            for product in plant.products.values()
        },
        "windows": sorted({w.every for p in plant.products.values() for w in p.windows}),
    }
    told: dict[str, tuple[Any, Any]] = {  # body, and what of it counts at the start
        "alarms-file": ({"alarms": {"backlog": plant.sinks.alarms.backlog}},) * 2,
        "historian": (historian, plant.historian),
        "kafka": ({"alarms": plant.sinks.alarms},) * 2,
    }
    made = []
    for name in targets(plant):
        body, start = told[name]
        made.append(
            Component(
                name=f"drainer-{name}",
                module="flows.drainer",
                rank=DRAINER,
                arguments=(name,),
                file=f"target-{name}.json",
                body=msgspec.to_builtins({"plant": plant.name, **body}),
                start=msgspec.to_builtins({"plant": plant.name, "config": start}),
            )
        )
    return made


def _receiver(plant: Plant, name: str, config: SourceConfig, folder: Path | None) -> Component:
    body = msgspec.to_builtins({"plant": plant.name, "source": name, "config": config})
    decoded = _DECODED.get(str(type(config).__struct_config__.tag), ())
    nodes = getattr(config, "nodes", None)
    if nodes is not None:  # those of the applied plant; the receiver begins anew with others
        body["files"] = {nodes: plant.files.get(nodes, b"").decode("utf-8", "replace")}
    start = {key: value for key, value in body["config"].items() if key not in decoded}
    return Component(
        name=f"receiver-{name}",
        module="flows.receiver",
        rank=RECEIVER,
        arguments=(name,),
        file=f"source-{name}.json",
        body={**body, "folder": str(folder.resolve()) if folder is not None else None},
        start={**body, "config": start},
    )
