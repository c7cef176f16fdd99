"""connectors/journal/sample.yaml: every key of `journal` stands in it, and it is right."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from connectors.journal.kafka_config import JournalConfig
from flows.folder import read_folder
from flows.plant_reader import load_plant
from flows.schema_command import schema_of

ROOT = Path(__file__).resolve().parents[2]
PLANT = """plant: line
sources:
  line1: {kind: mqtt, host: 127.0.0.1, subscribe: ["devices/#"], topic: "devices/{device_id}"}
shards: {count: 2}
"""
SECRET = "a-secret"


def test_every_key_of_the_journal_is_in_the_sample() -> None:
    sample = (ROOT / "connectors" / "journal" / "sample.yaml").read_text("utf-8")
    whole = re.sub(r"^  # (\w+:)", r"  \1", sample, flags=re.MULTILINE)
    whole = whole.replace("${file:/run/secrets/kafka}", "${KAFKA_PASSWORD}")
    files = read_folder(ROOT / "tests" / "golden" / "base")
    for text in (sample, whole):
        plant, problems = load_plant(
            files | {"plant.yaml": (PLANT + text).encode()}, {"KAFKA_PASSWORD": SECRET}, name_hint="line"
        )
        assert plant is not None, problems.render()
        assert [one.text for one in problems.errors] == []
    keys = set(re.findall(r"^  (\w+):", whole, flags=re.MULTILINE))
    assert keys == {field.encode_name for field in msgspec.structs.fields(JournalConfig)}
    assert plant is not None
    assert plant.journal.shards_here == "0-1"
    assert set(schema_of("plant")["$defs"]["JournalConfig"]["properties"]) == keys
