"""A whole plant whose journal is on Kafka, and whose flow, journal and broker are killed: the short form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.journal_campaign import JournalCampaign
from tests.services.kafka import KafkaBroker


@pytest.mark.kafka
@pytest.mark.kill
def test_a_plant_over_a_partition_is_that_of_an_undisturbed_run(broker: KafkaBroker, tmp_path: Path) -> None:
    victims = ("flow", "journal", "kafka")
    campaign = JournalCampaign(tmp_path / "campaign", 3, 5, broker, 0.0, victims)
    found = campaign.run()
    told = "\n".join(found.lines())
    assert found.clean, told
    assert set(campaign.killed) == set(victims), campaign.killed
