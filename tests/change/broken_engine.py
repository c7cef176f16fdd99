"""An engine with a fault: its decode stage raises, or ends the process, on frames that say so.

`python -m tests.change.broken_engine run PLANT ...` is `penstock run` with that engine; `broken_flow` and
`broken_trial` are its flow and its trial of a frame.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from flows import cli, quarantine, supervisor
from flows.components import FLOW, Component, components
from flows.plant_file import Plant
from operators.batch import FRAME_QUARANTINED, Slice
from operators.decode.step import DecodeLogic

HERE = "tests.change.broken_engine"


def broken(process: Any) -> Any:
    """`DecodeLogic.process` that does not stand every frame."""

    def run(self: DecodeLogic, item: Slice, *more: Any) -> None:
        for row in range(len(item.frames)):
            if not item.frames.flags[row] & FRAME_QUARANTINED:
                if b"divide" in item.frames.frame(row):
                    raise ZeroDivisionError("a fault of the engine")
                if b"abort" in item.frames.frame(row):
                    os.abort()
        process(self, item, *more)

    return run


def broken_components(
    plant: Plant, folder: Path | None = None, taken: Mapping[int, str] | None = None
) -> dict[str, Component]:
    """The plant's processes, the flow of every shard with the fault in it."""
    return {
        name: msgspec.structs.replace(one, module="tests.change.broken_flow") if one.rank == FLOW else one
        for name, one in components(plant, folder, taken).items()
    }


def main() -> None:
    """`run`, as `penstock run`."""
    supervisor.components = broken_components  # type: ignore[attr-defined]
    quarantine.TRIAL = "tests.change.broken_trial"  # type: ignore[misc]
    cli.main(sys.argv[1:])


def break_it() -> None:
    """Put the fault in."""
    DecodeLogic.process = broken(DecodeLogic.process)  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
