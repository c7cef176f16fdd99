"""One connector after the other, with what it waives; see `subject.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.processes import Processes
from tests.conformance.proxy import Proxy
from tests.conformance.subject import Subject
from tests.conformance.subjects import SUBJECTS


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    one = SUBJECTS[request.param](tmp_path)
    promises = [request.function.__name__.removeprefix("test_")]
    if "proxy" in request.fixturenames:
        promises.append("network")
    why = next((one.waivers[name] for name in promises if name in one.waivers), None)
    if why is not None:
        one.close()
        pytest.skip(f"waived: {why}")
    yield one
    one.close()


@pytest.fixture
def proxy(subject: Subject) -> Iterator[Proxy]:
    """A network between the source and its peer."""
    between = subject.interpose()
    yield between
    between.close()


@pytest.fixture
def processes(subject: Subject, tmp_path: Path) -> Iterator[Processes]:
    """A journal and the subject's receiver as processes of their own."""
    both = Processes(subject.config, tmp_path / "data", subject.read)
    yield both
    both.close()
