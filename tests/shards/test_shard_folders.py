"""Which shard a device belongs to, and that a data directory keeps the shards it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.shards import Sharding, hash_shard, murmur2
from flows.shards import divided, home_of, settle_shards, shard_folders


def test_the_hash_is_that_of_kafkas_java_clients() -> None:
    """Values of org.apache.kafka.common.utils.UtilsTest.testMurmur2."""
    expected = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: (murmur2(key) ^ 1 << 31) - (1 << 31) for key in expected} == expected


def test_shards_are_for_ever() -> None:
    """A change of these numbers would tear every plant's devices from their past."""
    assert [hash_shard(key, 3) for key in ("21", "foobar", "abc", "press-01", "프레스-1", "")] == [
        (-973932308 & 0x7FFFFFFF) % 3,
        (-790332482 & 0x7FFFFFFF) % 3,
        (479470107 & 0x7FFFFFFF) % 3,
        2,
        2,
        0,
    ]


@given(st.text(min_size=1, max_size=12), st.integers(1, 64))
def test_every_device_has_one_shard(device: str, count: int) -> None:
    shard = Sharding(count=count).of_device(device)
    assert 0 <= shard < count
    assert shard == Sharding(count=count).of_device(device, "a hub")


def test_by_hub_and_site_all_of_one_go_together() -> None:
    by_hub = Sharding(count=7, by="hub_id", keys={"a": "hub-1"})
    assert by_hub.of_device("a", "another") == hash_shard("hub-1", 7) == by_hub.of_device("b", "hub-1")
    assert by_hub.of_device("alone") == hash_shard("alone", 7)
    by_site = Sharding(count=7, by="site_id", keys={"a": "ulsan", "b": "ulsan"})
    assert by_site.of_device("a") == by_site.of_device("b") == hash_shard("ulsan", 7)
    assert by_site.of_device("c", "hub-1") == hash_shard("c", 7)
    assert by_site.of_device("") == by_hub.of_device("", "hub-1") == 0


def test_one_shard_is_the_data_directory(tmp_path: Path) -> None:
    assert settle_shards(tmp_path, 1, "device_id") == [tmp_path] == shard_folders(tmp_path)
    assert not (tmp_path / "shards.json").exists()
    assert home_of(tmp_path) == (tmp_path, None)


def test_shards_have_a_folder_each(tmp_path: Path) -> None:
    folders = settle_shards(tmp_path, 3, "hub_id")
    assert folders == [tmp_path / "shards" / str(number) for number in range(3)] == shard_folders(tmp_path)
    assert [home_of(folder) for folder in folders] == [(tmp_path, number) for number in range(3)]
    assert settle_shards(tmp_path, 3, "hub_id") == folders
    assert (divided(tmp_path).count, divided(tmp_path).by) == (3, "hub_id")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((1, "device_id"), (2, "device_id"), "1 shard in {} cannot become 2 shards by device_id"),
        ((2, "device_id"), (1, "device_id"), "2 shards by device_id in {} cannot become 1 shard"),
        ((2, "device_id"), (2, "hub_id"), "2 shards by device_id in {} cannot become 2 shards by hub_id"),
    ],
)
def test_a_plant_with_data_keeps_its_shards(
    tmp_path: Path, before: tuple[int, str], after: tuple[int, str], told: str
) -> None:
    folder = settle_shards(tmp_path, *before)[-1]  # type: ignore[arg-type]
    settle_shards(tmp_path, *after)  # type: ignore[arg-type]  # nothing is in it yet
    settle_shards(tmp_path, *before)  # type: ignore[arg-type]
    (folder / "journal").mkdir(exist_ok=True)
    (folder / "journal" / "data.mdb").touch()
    with pytest.raises(ConfigError) as refused:
        settle_shards(tmp_path, *after)  # type: ignore[arg-type]
    assert str(refused.value) == (
        f"plant.yaml  shards: {told.format(tmp_path)}: the shards of a plant with data cannot change; run it "
        "over a new data directory (--data DIR), the old one stays to be looked at and replayed"
    )
    assert settle_shards(tmp_path, *before)[-1] == folder  # type: ignore[arg-type]


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "shards.json").write_text("{")
    with pytest.raises(ConfigError, match=r"shards\.json: cannot be read"):
        shard_folders(tmp_path)
