"""Every option of a source is in its sample.yaml, which its README shows."""

from __future__ import annotations

import msgspec
import pytest

from connectors.tcp.config import Delimiter, Fixed, JsonLines, LengthPrefix, ModbusTcp, StxEtx
from flows.wiring import SOURCES
from operators.convert import convert
from operators.document import Node, Problems, load_yaml
from tests.conformance.processes import ROOT


@pytest.mark.parametrize("kind", list(SOURCES))
def test_every_option_is_in_the_sample(kind: str) -> None:
    """Each source of a sample is taken as it stands; together they name every key."""
    struct = SOURCES[kind].config
    found = [node for node in sample(kind).values() if node.plain()["kind"] == kind]
    for node in found:
        problems = Problems()
        assert convert(node, struct, problems) is not None, problems.render()
    keys = {field.encode_name for field in msgspec.structs.fields(struct)} | {"kind"}
    assert {key for node in found for key in node.plain()} == keys
    folder = ROOT / "connectors" / kind
    readme = (folder / "README.md").read_text("utf-8")
    shown = (folder / "sample.yaml").read_text("utf-8").rstrip()
    assert f"## Every key\n\n```yaml\n{shown}\n```\n" in readme


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("legacy", LengthPrefix),
        ("lines", Delimiter),
        ("scales", StxEtx),
        ("counters", Fixed),
        ("modbus", ModbusTcp),
        ("events", JsonLines),
    ],
)
def test_every_option_of_framing_is_in_the_sample(name: str, struct: type[msgspec.Struct]) -> None:
    framing = sample("tcp")[name].plain()["framing"]
    assert set(framing) == {field.encode_name for field in msgspec.structs.fields(struct)} | {"kind"}


def sample(kind: str) -> dict[str, Node]:
    path = ROOT / "connectors" / kind / "sample.yaml"
    problems = Problems()
    (node,) = load_yaml(path.read_text(), path.name, problems)
    assert problems.render() == ""
    sources = node.get("sources")
    assert sources is not None
    return {name: child for name in sources.plain() if (child := sources.get(name)) is not None}
