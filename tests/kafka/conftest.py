"""One broker for all tests of this folder: plain, behind a proxy's port, with TLS and a login, and
with access lists."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.services.certificates import Certificates
from tests.services.kafka import KafkaBroker, why_not


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    lacking = why_not()
    if lacking:
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("kafka")
    made = KafkaBroker(folder, proxied=True, certificates=Certificates(folder / "certificates"), guarded=True)
    made.start()
    yield made
    made.stop()
