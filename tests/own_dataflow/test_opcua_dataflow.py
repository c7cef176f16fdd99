"""An OPC UA server as the source of a dataflow of one's own: its frames are read with `connectors.typed`."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from connectors.opcua import OpcuaConfig, OpcuaSource
from connectors.typed import unpack
from operators.batch import FrameBatch
from operators.spec import MILLISECOND
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OpcuaServer

lacking = why_not()
pytestmark = pytest.mark.skipif(lacking is not None, reason=str(lacking))


def test_values_of_a_server(tmp_path: Path) -> None:
    server = OpcuaServer(
        tmp_path / "server", [("press-01", "tempC", "Double", 20.5), ("press-02", "on", "Boolean", True)]
    )
    nodes = tmp_path / "nodes.csv"
    nodes.write_text(
        "node_id,device_id,metric\n"
        f"nsu={NAMESPACE};s=press-01.tempC,press-01,tempC\nnsu={NAMESPACE};s=press-02.on,press-02,on\n"
    )
    config = OpcuaConfig(endpoint=server.endpoint, nodes=str(nodes), publishing=50 * MILLISECOND)
    stop, seen = threading.Event(), list[tuple[str, str, Any]]()

    def take(batch: FrameBatch) -> list[Any]:
        for address, payload in batch.frames():
            seen.extend((address.topic, value.metric, value.value) for value in unpack(payload))
        if len(seen) == 2:
            server.set("press-01.tempC", 21.5)
        if len(seen) == 3:
            stop.set()
        return []

    flow = Dataflow("own")
    batches = op.input("scada", flow, OpcuaSource(config, journal=tmp_path / "journal", stop=stop))
    op.output("out", op.flat_map("values", batches, take), TestingSink([]))
    try:
        run_main(flow, epoch_interval=timedelta(milliseconds=50))
    finally:
        server.close()
    assert sorted(seen[:2]) == [("press-01", "tempC", 20.5), ("press-02", "on", True)]
    assert seen[2:] == [("press-01", "tempC", 21.5)]
