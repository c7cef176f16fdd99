"""At least 20 SIGKILLs at seeded random moments; nothing is lost, doubled or invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kill.campaign import VICTIMS, Campaign


@pytest.mark.kill
def test_kills_leave_the_results_of_an_undisturbed_run(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "campaign", kills=21, seed=11)
    found = campaign.run()
    told = "\n".join(found.lines())
    assert found.clean, told
    assert sum(campaign.killed.values()) == 21
    assert set(campaign.killed) == set(VICTIMS), campaign.killed  # each was killed at least once
    results = {kind.what: kind.expected for kind in found.kinds}
    assert results["alarm events"] > 20, told
    assert results["windows of 5s"] > 100, told
