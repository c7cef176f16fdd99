"""Looking for `nodes` in frames that are not read: found where it stands, equal where its text is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.decode.member_kernels import member_hashes

NAME = np.frombuffer(b'"nodes"', np.uint8).copy()


def hashes(*texts: bytes) -> list[int]:
    lengths = np.array([len(text) for text in texts], np.int64)
    payload = np.frombuffer(bytearray().join(texts), np.uint8)
    found = np.zeros(len(texts), np.uint64)
    asked = np.ones(len(texts), np.uint8)
    count = member_hashes(payload, np.cumsum(lengths) - lengths, lengths, asked, NAME, found)
    assert count == np.count_nonzero(found)
    return [int(one) for one in found]


words = st.sampled_from(["nodes", "node", "odes", 'a"b', "nodes]", "[", "\\", "é"])
values = st.recursive(
    st.one_of(st.none(), st.integers(0, 9), words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=12,
)


def arrays(value: Any) -> list[Any]:
    """The lists under the name, at any depth, in their order."""
    if isinstance(value, dict):
        mine = [
            [one] if key == "nodes" and isinstance(one, list) else arrays(one) for key, one in value.items()
        ]
        return [one for some in mine for one in some]
    return [one for inner in value for one in arrays(inner)] if isinstance(value, list) else []


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(words, values, max_size=4), st.sampled_from([None, 1]))
def test_it_is_found_where_the_plain_way_finds_it(document: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    (found,) = hashes(text)
    assert (found != 0) == bool(arrays(document))
    after = b'{"x": "between"}' + text  # what stands before and behind a frame is none of its
    assert hashes(b'{"nodes":', text, b"[1]}")[1] == found == hashes(after[16:], b"[]")[0]


def test_other_members_do_not_matter_and_another_text_does() -> None:
    one, same, other = hashes(
        b'{"t":1,"nodes":[{"device_id":"a"}]}',
        b'{"nodes" : [{"device_id":"a"}],"t":2,"x":"]"}',
        b'{"t":1,"nodes":[{"device_id":"b"}]}',
    )
    assert one == same != other
    assert hashes(b'{"nodes":[{"device_id"', b'{"nodes":{}}', b'{"nodes', b"")[1:] == [0, 0, 0]
