"""What is said of a historian that is not there."""

from __future__ import annotations

import pytest

from connectors.clickhouse.sink import ClickHouseTarget, historian_config
from connectors.errors import ConnectError
from tests.ports import free_port


def test_a_server_that_is_away_is_told_in_the_systems_words() -> None:
    port = free_port()
    config = historian_config(
        {"historian": {"url": f"http://line:a-secret@127.0.0.1:{port}/plant"}, "products": {}}
    )
    with pytest.raises(ConnectError) as told:
        ClickHouseTarget(config, "log").open()
    assert str(told.value) == f"no ClickHouse answers at 127.0.0.1:{port}: [Errno 111] Connection refused"
