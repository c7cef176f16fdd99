"""What a window may say in this version."""

from __future__ import annotations

import pytest

from operators.contract.spec import Metric
from operators.spec import DAY, HOUR
from operators.windows.spec import Window, kept, supported, window_metrics


@pytest.mark.parametrize("every", ["1s", "10s", "1m", "5m", "15m", "30m"])
def test_lengths_that_divide_an_hour(every):
    assert supported(Window(every=every)) is None


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window(every="1h"), "every: '1h' is not yet in this version"),
        (Window(every="60m"), "every: '60m' is not yet in this version"),
        (Window(every="shift"), "every: 'shift' is not yet in this version"),
        (Window(every="1mo"), "every: '1mo' is not yet in this version"),
        (
            Window(every="1m", by=["site"]),
            "by: 'site' is unknown; did you mean 'site_id'?; one of device_id, hub_id, site_id, customer_id, "
            "productId",
        ),
        (
            Window(every="1m", by=["site_id", "productId"]),
            "by: 2 names; write one of device_id, hub_id, site_id, customer_id, productId, and a window of "
            "its own for another",
        ),
        (Window(every="7m"), "every: '7m' does not divide an hour; take 1m, 5m, 15m, 30m"),
        (Window(every="soon"), "every: 'soon' is no window; write a length as 30s, 1m, 5m"),
        (
            Window(every="1s", correct_within=7 * DAY),
            "lateness and correct_within span 604801 windows of 1s, more than 4096; "
            "make them shorter or the window longer",
        ),
    ],
)
def test_what_is_refused(window, text):
    assert supported(window) == text


def test_places_and_metrics():
    assert kept(Window(every="1m", lateness=10 * 1_000_000_000, correct_within=HOUR)) == 62
    kinds = ("number", "string", "integer", "boolean")
    metrics = {kind: Metric(name=kind, type=kind) for kind in kinds}
    assert window_metrics(Window(every="1m"), metrics) == ["number", "integer"]
    assert window_metrics(Window(every="1m", metrics=["boolean", "number"]), metrics) == ["number", "boolean"]
