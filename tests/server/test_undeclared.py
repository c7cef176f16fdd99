"""Metrics that a product does not declare are counted by name, and told."""

from __future__ import annotations

import json
from pathlib import Path

from flows.metrics import PlantCollector
from flows.plant_reader import load_bundle, load_plant
from flows.shard import Shard
from flows.views import Views
from operators.batch import Address
from tests.decode_json.frames import slices

FILES = {
    "plant.yaml": b'plant: p\nsources:\n  s: {kind: mqtt, host: h, subscribe: ["#"], topic: "{device_id}"}\n',
    "products/press.yaml": b"productId: press\nversion: 1\ntopics: ['+']\ndecode: {format: json}\n"
    b"metrics: {tempC: {}}\n",
    "devices.csv": b"device_id,productId\na,press\n",
}


def test_undeclared_metrics_are_counted_by_name(tmp_path: Path) -> None:
    plant, problems = load_plant(FILES, {})
    assert plant is not None, problems.render()
    shard = Shard(plant, load=load_bundle)
    assert shard.undeclared() == []
    decode = shard.decode()
    sent = [{"tempC": 1, "zz": 1, "b": 1}, {"zz": 2}, {"tempC": 3}]
    frames = [(Address("s", "a"), json.dumps({"data": {"metrics": one}}).encode(), 0) for one in sent]
    for item in slices(frames, cut=2):
        decode.process(item)
    found = shard.undeclared()
    assert found == [
        {"productId": "press", "metric": "b", "count": 1},
        {"productId": "press", "metric": "zz", "count": 2},
    ]
    collector = PlantCollector(
        {}, {}, {}, {}, {"entries": 0, "seconds": 0.0}, {}, Views(tmp_path), {"undeclared": found}
    )
    samples = {
        tuple(sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name == "penstock_undeclared_metrics_total"
    }
    assert samples == {("press", "b"): 1.0, ("press", "zz"): 2.0}
