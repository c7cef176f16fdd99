"""A plant of several shards that runs for real, whatever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.reader import JournalReader
from flows.apply import plant_control
from flows.folder import open_plant
from flows.shards import shard_folders
from flows.status import read_status
from tests.journal.journal_process import RunningJournal
from tests.shards.running import ShardedPlant
from tests.shards.scenario import FILES, PLANT, RULES, three_find_what_one_does
from tests.waiting import until

KILLS = {
    60: "flow-1",
    120: "journal-2",
    150: "flow-2",
    200: "receiver-ingest",
    240: "journal-0",
    280: "flow-0",
}


def test_three_shards_find_what_one_does_under_kills(tmp_path: Path) -> None:
    def kill(plant: ShardedPlant, number: int) -> None:
        if number in KILLS:
            plant.kill(KILLS[number])

    three_find_what_one_does(tmp_path, 28, 90, kill)


def test_a_plant_applied_to_one_shard_reaches_all(tmp_path: Path) -> None:
    two = {**FILES, "plant.yaml": PLANT + "shards: {count: 2, by: hub_id}\n"}
    plant = ShardedPlant(tmp_path, two)
    with plant:
        first = plant.applied()
        assert first[0] == first[1]
        assert len(first[0]) == 1
        plant.write({"rules/rules.yaml": RULES.replace("tempC > 80", "tempC > 81")})
        done = plant.call("apply", "--why", "a little hotter", "--by", "kim")
        assert done.returncode == 0, done.stderr
        both = plant.applied()
        assert both[0] == both[1]
        assert len(both[0]) == 2
        plant.write({"plant.yaml": PLANT + "shards: {count: 3, by: hub_id}\n"})
        refused = plant.call("apply", "--why", "more", "--by", "kim")
        assert refused.returncode == 1
        assert "devices cannot move between shards while they are heard" in refused.stdout + refused.stderr
        plant.write({"plant.yaml": two["plant.yaml"]})
    # whoever applied it was killed between the first shard and the others
    plant.write({"rules/rules.yaml": RULES.replace("tempC > 80", "tempC > 82")})
    changed = open_plant(plant.folder)
    folders = shard_folders(plant.data)
    with RunningJournal(folders[0]), BlockingJournalClient(folders[0], "apply") as journal:
        journal.control("plant", plant_control(changed, "kim", "hotter still"))
    with plant:
        until(lambda: all(len(ids) == 3 for ids in plant.applied()), "the others")
        mended = plant.applied()
        assert mended[0] == mended[1]
        taken = lambda: {read_status(f)["flow"].get("sha256") for f in folders} == {changed.sha256}  # noqa: E731
        until(taken, "the flows")
    with JournalReader(folders[1] / "journal") as reader:
        newest = reader.newest_applied()
    assert newest is not None
    assert (newest.by, newest.why) == ("kim", "hotter still")
    plant.write({"plant.yaml": PLANT})
    other = plant.call("run", "--apply")
    assert other.returncode == 1
    assert "devices cannot move between shards while they are heard" in other.stdout + other.stderr
