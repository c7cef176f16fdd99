"""A frame that ends the flow is found, set aside, and told; the frames around it are worked on."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from connectors.journal.output_store import OutputReader
from connectors.journal.reader import JournalReader
from flows.quarantine import is_crash
from flows.views import Views
from tests.change.plants import FILES
from tests.change.running import RunningPlant
from tests.waiting import until


@pytest.mark.parametrize("fault", ["divide", "abort"])
def test_a_frame_that_ends_the_flow(tmp_path: Path, fault: str) -> None:
    with RunningPlant(tmp_path, FILES, engine="tests.change.broken_engine") as plant:
        with socket.create_connection(("127.0.0.1", int(plant.environ["LINE1_PORT"]))) as to:
            at = int(time.time() * 1000)
            to.sendall(json.dumps({"id": "p1", "t": at, "m": {"note": fault}}).encode() + b"\n")
        until(lambda: "is set aside: reject engine_error" in plant.log("run"), "the frame to be set aside")
        views = Views(plant.data)
        rejects = until(lambda: views.rejects(10, "engine_error"), "the reject")
        assert [json.loads(bytes.fromhex(row["payload_hex"]))["m"] for row in rejects] == [{"note": fault}]
        assert rejects[0]["device_id"] is None  # the payload, which names it, is not read
        position = rejects[0]["position"]
        with closing(JournalReader(plant.data / "journal")) as reader:
            last = reader.last()
        with closing(OutputReader(plant.data / "output")) as output:
            until(lambda: output.applied() > last, "the frames behind it")
        assert plant.log("run").count("looking for the frame") == 1
        assert not (plant.data / "trial").exists()
        found = plant.compared()
        lines = [json.loads(line) for line in plant.recording.open("rb") if b'"quarantine"' in line]
        assert [line["quarantine"]["position"] for line in lines] == [position]
    assert found.clean, "\n".join(found.lines())


def test_what_counts_as_a_crash() -> None:
    assert [code for code in (None, 0, 1, 3, -9, -15, -11, -6, 4) if is_crash(code)] == [1, -11, -6, 4]
