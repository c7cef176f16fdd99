"""An OPC UA receiver under test, beside its own appender, and what it put there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from connectors.fakes import MemoryAppender
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.source import OpcuaReceiver
from connectors.source import Surroundings
from operators.decode.decoders import build_decoder
from operators.decode.spec import ProductDecode
from operators.spec import MILLISECOND, SECOND
from tests.decode_json.frames import batch, good_spec
from tests.receivers.running import LOOK_S, ended
from tests.waiting import LIMIT_S


def configured(endpoint: str, **keys: Any) -> OpcuaConfig:
    """A source that is quick enough for tests."""
    given: dict[str, Any] = {
        "nodes": "nodes.csv",
        "publishing": 50 * MILLISECOND,
        "sampling": 50 * MILLISECOND,
        "retry": SECOND,
    }
    return OpcuaConfig(endpoint=endpoint, **(given | keys))


class Running:
    """kinds: metric -> its type in the product that reads the frames."""

    def __init__(
        self,
        folder: Path,
        config: OpcuaConfig,
        csv: str,
        kinds: Mapping[str, str],
        appender: MemoryAppender | None = None,
    ) -> None:
        (folder / "nodes.csv").write_text(csv)
        self.kinds = dict(kinds)
        self.appender = appender or MemoryAppender()
        self.receiver = OpcuaReceiver.build("scada", config, Surroundings("plant", folder, folder / "data"))
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.receiver.run(self.appender, self.stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        assert await ended(self.task), "the receiver did not stop within 5 s"
        self.task.result()

    async def until(self, what: Callable[[], bool], seconds: float = LIMIT_S) -> None:
        """Wait until it holds. seconds: as this loop has them, for what is promised within a time."""
        for _ in range(round(seconds / LOOK_S)):
            if what():
                return
            assert not self.task.done() or self.task.result() is None
            await asyncio.sleep(LOOK_S)
        raise AssertionError((self.receiver.status, self.values()))

    def told(self, what: str) -> float:
        """A figure of the status."""
        return self.receiver.status.extra.get(what, -1.0)

    def readings(self) -> list[tuple[str, int, dict[str, tuple[Any, int]]]]:
        """(device, milliseconds, {metric: (value, quality)}) in the order of the journal."""
        frames = [one for one in self.appender.frames if not one.headers]
        if not frames:
            return []
        product = ProductDecode("p", good_spec("format: typed", self.kinds), tuple(self.kinds.items()))
        found = build_decoder(product, 64).decode(
            batch([one.payload for one in frames]), np.arange(len(frames)), np.empty((0, len(frames)))
        )
        assert not found.status.any()
        told = []
        for n, frame in enumerate(found.frame.tolist()):
            values: dict[str, tuple[Any, int]] = {}
            for m, (name, kind) in enumerate(self.kinds.items()):
                if found.quality[m, n] != 3:
                    value = float(found.value[m, n])
                    shown = found.texts[int(value)] if kind == "string" and value == value else value
                    values[name] = (shown, int(found.quality[m, n]))
            told.append((frames[frame].topic, int(found.ts_ns[n]) // 1_000_000, values))
        return told

    def values(self) -> dict[str, tuple[Any, int]]:
        """The newest of each metric by device."""
        return {
            f"{device}.{name}": value
            for device, _, values in self.readings()
            for name, value in values.items()
        }

    def all_of(self, device: str, metric: str) -> list[Any]:
        """Every value of one metric, in order."""
        return [values[metric][0] for one, _, values in self.readings() if one == device and metric in values]
