"""The whole dataflow of a plant, one line a stage. Read this first.

    journal -> decode -> contract -> rules -> windows -> state -> output log

What travels is a `Slice` (operators/batch.py): a run of journal entries as columns, to which each
stage adds what it found. The stages' logic lives in the rooms of the same names; `Shard`
(flows/shard.py) builds each from the plant. Recorded input and the benchmark run this very
dataflow with another source and sink.

`python -m bytewax.run flows.plant -r DATA/recovery -s 10 -b 0` starts one shard by itself, over the
shard's folder that PENSTOCK_DATA names (docs/operations.md); `penstock run` starts it under the
supervisor, beside the journal and all others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from connectors.errors import PenstockError
from flows.shard import Shard
from operators.batch import Slice
from operators.stage import stage


def plant_flow(shard: Shard, source: Source[tuple[str, Slice]], sink: Sink[tuple[str, Slice]]) -> Dataflow:
    """The dataflow of one shard, from its journal to its output log."""
    flow = Dataflow("plant")
    slices = op.input("journal", flow, source)
    slices = stage("decode", slices, shard.decode)
    slices = stage("contract", slices, shard.contract)
    slices = stage("rules", slices, shard.rules)
    slices = stage("windows", slices, shard.windows)
    slices = stage("state", slices, shard.state)
    op.output("output", slices, sink)
    return flow


def __getattr__(name: str) -> Any:
    """`flow`, for `python -m bytewax.run flows.plant`: built when it is asked for."""
    if name != "flow":
        raise AttributeError(name)
    from flows.flow import flow_by_hand

    try:
        return flow_by_hand(Path(os.environ.get("PENSTOCK_DATA", ".penstock")).resolve(), sys.argv[1:])
    except PenstockError as error:
        sys.exit(f"penstock: {error}")
