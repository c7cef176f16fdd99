"""Which processes a plant is made of, and what each of them is told: the whole table.

`penstock apply` plans with it, the supervisor starts by it. What a process reads only at its start is
its `start`: where that differs between two plants, the process has to be started again. The rest of
a plant reaches the processes while they run: the flow by the journal, the server by its reader, the
historian's drainer by the records themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.journal.kafka_config import PartitionConfig, shards_here, sources_here
from connectors.shards import Sharding
from flows.plant_file import ArchiveConfig, Plant, SourceConfig
from flows.shards import archive_path

JOURNAL, FLOW, HISTORIAN, DRAINER, SERVER, RECEIVER = range(6)

# keys of a source that decoding alone looks at, so that a change of them is live
_DECODED: Final[Mapping[str, tuple[str, ...]]] = {
    "mqtt": ("topic", "product", "carries"),
    "tcp": ("topic", "product"),
    "http": ("topic", "product", "carries"),
    "opcua": ("topic", "product"),
    "kafka": ("template", "product", "carries"),
    "files": ("topic", "product", "live", "carries"),
}


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `rank`: it starts in that order; stopping goes the other way. shard: whose folder is
    its data directory; None: that of the plant. arguments: behind the data directory. body: its
    configuration, with secrets, which no file ever holds; None: it has none. start: of all that, what
    counts at its start. target: of the output log, which keeps records for each that is named."""

    name: str
    module: str
    rank: int
    shard: int | None = None
    arguments: tuple[str, ...] = ()
    body: Any = None
    start: Any = None
    target: str | None = None

    def configuration(self) -> bytes | None:
        """What the process reads from its `--config`; None: it has none."""
        return None if self.body is None else json.dumps(self.body).encode()

    def starts_like(self, other: Component) -> bool:
        """Whether the same process serves both."""
        mine, others = (self.module, self.arguments, self.start), (other.module, other.arguments, other.start)
        return mine == others


def components(
    plant: Plant, folder: Path | None = None, taken: Mapping[int, str] | None = None
) -> dict[str, Component]:
    """The processes of a plant by name, in the order of their start. folder: the plant's, for the
    relative paths of sources. taken: shards that another machine runs, though they should run here."""
    count, taken = plant.shards.count, taken or {}
    shards: list[int | None] = [None] if count == 1 else list(range(count))
    found = [_journal(plant, shard, taken) for shard in shards]
    if plant.journal.kind == "kafka" and count > 1:
        shards = list(shards_here(plant.journal, count))
    shards = [shard for shard in shards if (shard or 0) not in taken]
    found += [Component(name=_of("flow", k), module="flows.flow", rank=FLOW, shard=k) for k in shards]
    if plant.archive is not None:
        found += [_archiver(plant, plant.archive, shard) for shard in shards]
    if plant.historian.url == "embedded":
        listen = ("--listen", plant.historian.listen)
        found.append(Component(name="historian", module="flows.historian", rank=HISTORIAN, arguments=listen))
    for shard in shards:
        found.extend(_drainers(plant, shard))
    listen = ("--listen", plant.server.listen)
    found.append(Component(name="server", module="flows.server", rank=SERVER, arguments=listen))
    sharding = _sharding(plant)
    here = sources_here(plant.journal)
    sources = {name: one for name, one in plant.sources.items() if here is None or name in here}
    found.extend(_receiver(plant, name, one, folder, sharding) for name, one in sources.items())
    return {component.name: component for component in found}


def targets(plant: Plant) -> list[str]:
    """What the output log is drained to."""
    return ["alarms-file", "historian", *(["kafka"] if plant.sinks.alarms.bootstrap else [])]


def _of(name: str, shard: int | None) -> str:
    """The name of a shard's process: `flow`, or `flow-2` where there are several."""
    return name if shard is None else f"{name}-{shard}"


def _share(plant: Plant, size: int) -> int:
    """What one shard may use of bytes on disk that the plant states for all."""
    return size // plant.shards.count


def _journal(plant: Plant, shard: int | None, taken: Mapping[int, str]) -> Component:
    name = _of("journal", shard)
    several = () if shard is None else ("--name", name, "--status", f"../../run/{name}.json")
    return Component(
        name=name,
        module="connectors.journal.process",
        rank=JOURNAL,
        shard=shard,
        arguments=(
            *("--max-bytes", str(_share(plant, plant.journal.max))),
            *(("--archived",) if plant.archive is not None else ()),
            *several,
        ),
        **_partition(plant, shard, taken),
    )


def _partition(plant: Plant, shard: int | None, taken: Mapping[int, str]) -> dict[str, Any]:
    """What the journal process of a shard is told of the partition that is its journal."""
    if plant.journal.kind != "kafka":
        return {}
    number, count = shard or 0, plant.shards.count
    told = PartitionConfig(
        journal=plant.journal,
        partition=number,
        partitions=count,
        runs=number in shards_here(plant.journal, count) and number not in taken,
        taken=taken.get(number, ""),
    )
    body = msgspec.to_builtins(told)
    return {"body": body, "start": body}


def _archiver(plant: Plant, archive: ArchiveConfig, shard: int | None) -> Component:
    body = {
        **msgspec.to_builtins(archive),
        "path": archive_path(archive.path, shard),
        "journal_bytes": _share(plant, plant.journal.max),
    }
    return Component(
        name=_of("archiver", shard),
        module="flows.archiver",
        rank=DRAINER,
        shard=shard,
        body=body,
        start=body,
    )


def _drainers(plant: Plant, shard: int | None) -> list[Component]:
    alarms = msgspec.structs.replace(plant.sinks.alarms, backlog=_share(plant, plant.sinks.alarms.backlog))
    config = msgspec.structs.replace(plant.historian, backlog=_share(plant, plant.historian.backlog))
    historian = {
        "historian": config,
        "products": {
            product.productId: [[metric.name, metric.type] for metric in product.metrics.values()]
            for product in plant.products.values()
        },
        "windows": sorted({w.every for p in plant.products.values() for w in p.windows}),
    }
    told: dict[str, tuple[Any, Any]] = {  # body, and what of it counts at the start
        "alarms-file": ({"alarms": {"backlog": alarms.backlog}},) * 2,
        "historian": (historian, config),
        "kafka": ({"alarms": alarms},) * 2,
    }
    about = {"plant": plant.name} if shard is None else {"plant": plant.name, "shard": shard}
    made = []
    for name in targets(plant):
        body, start = told[name]
        made.append(
            Component(
                name=_of(f"drainer-{name}", shard),
                module="flows.drainer",
                rank=DRAINER,
                shard=shard,
                arguments=(name,),
                target=name,
                body=msgspec.to_builtins({**about, **body}),
                start=msgspec.to_builtins({**about, "config": start}),
            )
        )
    return made


def _sharding(plant: Plant) -> Sharding | None:
    """How a receiver chooses the shard of a frame; None where there is one."""
    count, by = plant.shards.count, plant.shards.by
    if count == 1:
        return None
    devices = plant.master.devices.items() if by != "device_id" else ()
    return Sharding(count=count, by=by, keys={name: row[by] for name, row in devices if row.get(by)})


def _receiver(
    plant: Plant, name: str, config: SourceConfig, folder: Path | None, sharding: Sharding | None
) -> Component:
    body = msgspec.to_builtins({"plant": plant.name, "source": name, "config": config})
    decoded = _DECODED.get(str(type(config).__struct_config__.tag), ())
    if sharding is not None:
        body["shards"] = msgspec.to_builtins(sharding)
        if config.device == "peer":  # which of them are named by their address without the port
            body["devices"] = list(plant.master.devices)
        decoded = tuple(key for key in decoded if key not in ("topic", "template"))
    nodes = getattr(config, "nodes", None)
    if nodes is not None:  # those of the applied plant; the receiver begins anew with others
        body["files"] = {nodes: plant.files.get(nodes, b"").decode("utf-8", "replace")}
    start = {key: value for key, value in body["config"].items() if key not in decoded}
    return Component(
        name=f"receiver-{name}",
        module="flows.receiver",
        rank=RECEIVER,
        arguments=(name,),
        body={**body, "folder": str(folder.resolve()) if folder is not None else None},
        start={**body, "config": start},
    )
