"""Two topic filters meet where some topic fits both."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from flows.plant_reach import meet

LEVELS = ("a", "b", "", "$s")
TOPICS = [list(levels) for depth in (1, 2, 3, 4) for levels in product(LEVELS, repeat=depth)]


def fits(pattern: list[str], topic: list[str]) -> bool:
    """MQTT 3.1.1, section 4.7, the plain way."""
    if topic[0].startswith("$") and pattern[0] in ("+", "#"):
        return False
    return fits_below(pattern, topic)


def fits_below(pattern: list[str], topic: list[str]) -> bool:
    if pattern[0] == "#":
        return True
    if pattern[0] not in ("+", topic[0]):
        return False
    if len(topic) == 1:
        return pattern[1:] in ([], ["#"])
    return len(pattern) > 1 and fits_below(pattern[1:], topic[1:])


FILTERS = st.builds(
    lambda levels, rest: [*levels, *rest],
    st.lists(st.sampled_from(["a", "b", "", "+", "$s"]), min_size=1, max_size=3),
    st.sampled_from([[], ["#"]]),
) | st.just(["#"])


@given(FILTERS, FILTERS)
def test_filters_meet_where_a_topic_fits_both(one: list[str], other: list[str]) -> None:
    both = any(fits(one, topic) and fits(other, topic) for topic in TOPICS)
    assert meet("/".join(one), "/".join(other)) == both
    assert meet("/".join(other), "/".join(one)) == both


def test_a_shared_subscription_is_its_filter() -> None:
    assert meet("$share/g/a/+", "a/b")
    assert not meet("$share/g/a/+", "b/b")
