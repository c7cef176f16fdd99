"""One connector after the other, with what it waives; see `subject.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conformance.processes import Processes
from tests.conformance.proxy import Proxy
from tests.conformance.subject import Subject
from tests.conformance.subjects import SUBJECTS


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    promises = [request.function.__name__.removeprefix("test_")]
    if "proxy" in request.fixturenames:
        promises.append("network")
    made = SUBJECTS[request.param]
    _skip_waived(
        getattr(made, "waivers", {}), promises
    )  # before its peer is started, where the class says so
    one = made(tmp_path)
    try:
        _skip_waived(one.waivers, promises)
        yield one
    finally:
        one.close()


def _skip_waived(waivers: Mapping[str, str], promises: Sequence[str]) -> None:
    for name in promises:
        if name in waivers:
            pytest.skip(f"waived: {waivers[name]}")


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
