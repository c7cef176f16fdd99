"""What holds for every test: where CI=true, a test that skips because something is missing fails.

A skip that begins with `waived:` is a conformance waiver and carries its reason; it stays a skip.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "waived:" not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped where CI=true: {reason}"
    return report
