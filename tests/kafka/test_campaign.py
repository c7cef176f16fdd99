"""A whole plant whose flow, drainer and broker are killed at seeded random moments: the short form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.campaign import VICTIMS, KafkaCampaign
from tests.services.kafka import KafkaBroker


@pytest.mark.kafka
@pytest.mark.kill
def test_one_committed_copy_of_every_event(broker: KafkaBroker, tmp_path: Path) -> None:
    campaign = KafkaCampaign(tmp_path / "campaign", 3, 5, "transactional", broker, away_s=0.0)
    found = campaign.run()
    told = "\n".join(found.lines())
    assert found.clean, told
    assert set(campaign.killed) == set(VICTIMS), campaign.killed
    results = {kind.what: kind.expected for kind in found.kinds}
    assert results["events on Kafka"] > 20, told
