"""Reading plant folders: the environment, bundles, hostile files, and everything that `new` writes."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.mqtt.config import MqttConfig
from connectors.tcp.config import TcpConfig
from flows.check_command import check
from flows.cli import cli
from flows.new_command import write_starter
from flows.plant_reader import bundle_hash, load_bundle, load_plant, read_folder
from flows.plant_rules import rule_version
from flows.schema_command import FILES, schema_of
from flows.wiring import SOURCES, source_kind
from operators.document import Problems, load_yaml
from operators.spec import MINUTE, SECOND
from tests.receivers.certificates import Authority

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "tests" / "golden" / "base"
PRESS_LINE = ROOT / "examples" / "press-line"
EXAMPLES = [PRESS_LINE, ROOT / "examples" / "machine-temperature"]


def load(files: dict[str, bytes], **environ: str):  # type: ignore[no-untyped-def]
    plant, problems = load_plant(files, environ)
    assert plant is not None, problems.render()
    return plant


def test_the_press_line() -> None:
    plant = load(read_folder(PRESS_LINE), MQTT_PORT="1884", TCP_PORT="7999")
    line1, hydraulics = plant.sources["line1"], plant.sources["hydraulics"]
    assert isinstance(line1, MqttConfig)
    assert isinstance(hydraulics, TcpConfig)
    assert (line1.host, line1.port) == ("127.0.0.1", 1884)
    assert hydraulics.listen == "127.0.0.1:7999"
    assert list(plant.products) == ["hydraulic-v1", "press-v1"]
    press = plant.products["press-v1"]
    assert (press.expected_every, press.live_within) == (SECOND, 15 * MINUTE)
    assert press.metrics["vibration"].on_breach == "clamp"
    assert press.metrics["tempC"].range == (-40.0, 150.0)
    assert list(press.metrics) == ["tempC", "rpm", "vibration", "mode"]
    rules = {rule.ruleId: rule for rule in plant.rules}
    assert rules["temp-high-press"].on_delay == 10 * SECOND
    assert len(rules["temp-high-press"].version) == 12
    assert plant.master.devices["press-03"]["tempHigh"] == "85"
    assert len(plant.master.devices) == 12


def test_a_bundle_reads_the_same_without_the_environment() -> None:
    files = read_folder(PRESS_LINE)
    plant = load(files, MQTT_PORT="1884", CLICKHOUSE_URL="http://secret@host")
    again = load_bundle(plant.files)
    assert again.sha256 == plant.sha256
    assert again.rules == plant.rules
    assert again.products["press-v1"].metrics == plant.products["press-v1"].metrics
    assert isinstance(again.sources["line1"], MqttConfig)
    assert again.sources["line1"].port == 1883
    assert b"secret" not in b"".join(plant.files.values())


def test_a_reference_without_default_is_left_in_a_bundle() -> None:
    files = read_folder(BASE)
    files["plant.yaml"] = b"""
plant: line
sources:
  a: {kind: mqtt, host: "${HOST}", port: "${PORT}", subscribe: ["#"], topic: "{device_id}", username: u,
      password: "${file:/run/secrets/x}", qos: "${QOS}", tls: "${TLS}", keep_alive: "${KEEP}"}
  b: {kind: tcp, listen: "${LISTEN}", framing: {kind: length_prefix, size: "${SIZE}"}, acknowledge: "${ACK}"}
historian: {url: "${URL}"}
journal: {max: "${MAX}"}
server: {listen: "127.0.0.1:${PORT}"}
"""
    plant = load_bundle(files)
    assert plant.sources["a"].password == "${file:/run/secrets/x}"
    resolved = {
        "HOST": "h",
        "PORT": "1",
        "QOS": "1",
        "TLS": "true",
        "KEEP": "5s",
        "LISTEN": ":7",
        "SIZE": "4",
        "MAX": "1GB",
    }
    _, problems = load_plant(files, resolved | {"ACK": "06", "URL": "https://h"})
    assert [one.text for one in problems.found] == [
        "cannot read the file /run/secrets/x: No such file or directory"
    ]


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "mqtt"
    secret.write_text("hunter2\n")
    files = read_folder(BASE)
    files["plant.yaml"] = files["plant.yaml"].replace(
        b"host:", f'username: u, password: "${{file:{secret}}}", host:'.encode()
    )
    source = load(files).sources["line1"]
    assert isinstance(source, MqttConfig)
    assert source.password == "hunter2"


def test_the_hash_is_of_all_that_can_change_a_result() -> None:
    files = read_folder(PRESS_LINE)
    plant = load(files)
    assert plant.sha256 == bundle_hash(plant.files)
    assert load(dict(reversed(files.items()))).sha256 == plant.sha256
    assert load({p: d for p, d in files.items() if not p.startswith("tests/")}).sha256 == plant.sha256
    changed = files | {"devices.csv": files["devices.csv"] + b"press-09,press-v1,,,,,\n"}
    assert load(changed).sha256 != plant.sha256


def test_the_version_of_a_rule_is_of_its_meaning_and_not_of_its_layout() -> None:
    def version(text: str) -> str:
        (node,) = load_yaml(text, "x", Problems())
        return rule_version(node.plain())

    first = version("ruleId: a\ndeadband: 2\ncondition: 'x > 5' # comment\n")
    assert first == version('{condition: "x > 5", deadband: 2.0, ruleId: "a"}')
    assert first != version("ruleId: a\ndeadband: 2\ncondition: 'x > 6'\n")
    assert len(first) == 12
    assert set(first) <= set("0123456789abcdef")


def test_an_alias_bomb_a_deep_and_a_large_file_are_refused_at_once() -> None:
    base = read_folder(BASE)
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    hostile = {
        "a bomb": (bomb, "anchors are not allowed"),
        "depth": ("ruleId: " + "[" * 100_000, "nested deeper than 40 levels"),
        "maps": ("{a: " * 100_000, "nested deeper than 40 levels"),
        "size": ("# " + "x" * (5 << 20), "larger than 4 MiB"),
        "number": ("ruleId: " + "9" * 1_000_000, "the name is longer than 128 characters"),
        "expression": (
            "ruleId: x\nproductId: press-v1\ntype: threshold\nseverity: high\ncondition: '"
            + "-" * 100_000
            + "1'",
            "condition",
        ),
    }
    for what, (text, told) in hostile.items():
        began = time.perf_counter()
        _, problems = load_plant(base | {"rules/temp.yaml": text.encode()}, {})
        assert told in problems.render(), what
        assert len(problems.render()) < 20_000, what
        assert time.perf_counter() - began < 20, what


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    path=st.sampled_from(["plant.yaml", "products/press-v1.yaml", "rules/temp.yaml", "devices.csv"]),
    place=st.floats(0, 1, exclude_max=True),
    cut=st.integers(0, 12),
    put=st.one_of(
        st.binary(max_size=6),
        st.sampled_from(
            [b"{", b"]", b": ", b"\n- ", b"null", b"\n", b"'", b"${X}", b"1e999", b"0x", b"[]", b"{}", b'"']
        ),
    ),
)
def test_no_damage_to_a_file_is_more_than_problems(path: str, place: float, cut: int, put: bytes) -> None:
    files = read_folder(BASE)
    data = files[path]
    at = int(place * len(data))
    files[path] = data[:at] + put + data[at + cut :]
    plant, problems = load_plant(files, {})
    assert (plant is None) == bool(problems.errors)
    assert "Traceback" not in problems.render()


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    path=st.sampled_from(["plant.yaml", "products/press-v1.yaml", "rules/temp.yaml"]),
    which=st.integers(0, 400),
    value=st.sampled_from(
        [
            None,
            True,
            5,
            -1,
            1.5,
            "",
            "text",
            [],
            {},
            [None],
            {"a": None},
            [[1]],
            {"kind": "tcp"},
            "10s",
            "2GB",
        ]
    ),
)
def test_any_value_anywhere_is_a_problem_or_good(path: str, which: int, value: object) -> None:
    """A value of another kind in the place of any value of a plant."""
    files = read_folder(PRESS_LINE) | read_folder(BASE)
    (node,) = load_yaml(files[path].decode(), path, Problems())
    plain = node.plain()
    places = list(_places(plain))
    container, key = places[which % len(places)]
    container[key] = value
    files[path] = json.dumps(plain).encode()
    plant, problems = load_plant(files, {})
    assert (plant is None) == bool(problems.errors)


def _places(value):  # type: ignore[no-untyped-def]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(pairs):
        yield value, key
        yield from _places(below)


def test_only_what_belongs_to_a_plant_is_read(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    for path in (
        ".penstock/journal/data.mdb",
        "inbox/a.csv",
        "README.md",
        "products/notes.txt",
        ".hidden.yaml",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    assert read_folder(tmp_path).keys() == read_folder(BASE).keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_schemas_take_the_examples(example: Path) -> None:
    for path, data in read_folder(example).items():
        if path.endswith(".yaml"):
            kind = {"products": "product", "rules": "rule", "tests": "test"}.get(path.split("/")[0], "plant")
            validator = jsonschema.Draft202012Validator(schema_of(kind))
            for node in load_yaml(data.decode(), path, Problems()):
                assert [error.message for error in validator.iter_errors(node.plain())] == []


def test_schemas_refuse_what_check_refuses() -> None:
    rule = {"ruleId": "a", "productId": "p", "type": "threshold", "condition": "x > 1", "severity": "high"}
    validator = jsonschema.Draft202012Validator(schema_of("rule"))
    assert validator.is_valid(rule)
    for wrong in (
        {"severty": "high"},
        {"on_delay": 10},
        {"on_delay": "10"},
        {"version": "x"},
        {"severity": "x"},
    ):
        assert not validator.is_valid(rule | wrong), wrong
    for name in FILES:
        jsonschema.Draft202012Validator.check_schema(schema_of(name))


def test_a_new_plant_passes_check(tmp_path: Path) -> None:
    folder = tmp_path / "my plant"
    assert CliRunner().invoke(cli, ["new", str(folder), "--product", "oven"]).exit_code == 0
    assert (folder / ".schema" / "rule.json").exists()
    assert (
        (folder / "plant.yaml").read_text().startswith("# yaml-language-server: $schema=.schema/plant.json")
    )
    result = CliRunner().invoke(check, [str(folder), "--json"], standalone_mode=False)
    assert result.return_value == 0
    told = json.loads(result.stdout)
    assert (told["ok"], told["problems"]) == (True, [])
    assert told["plant"]["name"] == "my-plant"
    with pytest.raises(ConfigError, match="exists already"):
        write_starter(folder, "oven")


@pytest.mark.parametrize("name", ["2024", "null", "true", "1e5"])
def test_a_new_plant_with_a_name_that_yaml_reads_as_something_else(tmp_path: Path, name: str) -> None:
    write_starter(tmp_path / name, name)
    assert load(read_folder(tmp_path / name)).name == name


def test_check_says_what_is_wrong_and_exits_with_1(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    rules = tmp_path / "rules" / "temp.yaml"
    rules.write_text(rules.read_text().replace("tempC", "tempc"))
    result = CliRunner().invoke(check, [str(tmp_path)], standalone_mode=False)
    assert result.return_value == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "rules/temp.yaml:4:13  temp-high.condition: no metric 'tempc' in press-v1; did you mean 'tempC'?",
        "    tempc > param.tempHigh",
        "    ^~~~~",
        "1 error",
    ]
    result = CliRunner().invoke(check, [str(tmp_path), "--json"], standalone_mode=False)
    problem = json.loads(result.stdout)["problems"][0]
    assert (problem["file"], problem["line"], problem["column"]) == ("rules/temp.yaml", 4, 13)


def test_check_connect_tries_the_addresses(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "plant.yaml").write_text(
        """
plant: line
sources:
  a: {kind: mqtt, host: 127.0.0.1, port: 1, subscribe: ["#"], topic: "{device_id}"}
  b: {kind: tcp, listen: "127.0.0.1:0", framing: {kind: length_prefix}}
historian: {listen: "127.0.0.1:0"}
server: {listen: "127.0.0.1:0"}
"""
    )
    result = CliRunner().invoke(check, [str(tmp_path), "--connect"], standalone_mode=False)
    assert result.return_value == 3
    assert [line for line in result.stdout.splitlines() if line[:4] in ("ok  ", "FAIL")] == [
        "FAIL  sources.a  127.0.0.1:1  Connection refused",
        "ok    sources.b  127.0.0.1:0  free to listen on",
        "ok    historian  127.0.0.1:0  free to listen on",
        "ok    server  127.0.0.1:0  free to listen on",
    ]


def test_check_connect_looks_at_what_listens(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    authority = Authority(tmp_path, "ours")
    authority.issue("server")
    authority.issue("other")
    held = socket.create_server(("127.0.0.1", 0))
    port = held.getsockname()[1]
    (tmp_path / "plant.yaml").write_text(
        f"""
plant: line
sources:
  a: {{kind: http, listen: "127.0.0.1:{port}"}}
  b: {{kind: http, listen: "127.0.0.1:0", tls: true, cert_file: server.pem, key_file: server.key}}
  c: {{kind: tcp, listen: "127.0.0.1:0", framing: {{kind: modbus_tcp}}, tls: true, cert_file: server.pem,
      key_file: other.key}}
  d: {{kind: http, listen: "127.0.0.1:0", tls: true, cert_file: none.pem, key_file: server.key}}
  e: {{kind: tcp, listen: "192.0.2.1:7001", framing: {{kind: json_lines}}}}
historian: {{listen: "127.0.0.1:0"}}
server: {{listen: "127.0.0.1:0"}}
"""
    )
    result = CliRunner().invoke(check, [str(tmp_path), "--connect"], standalone_mode=False)
    assert result.return_value == 1
    missing = "plant.yaml:8:64  sources.d.cert_file: no file 'none.pem', seen from the plant's folder"
    assert result.stderr.splitlines()[-2:] == [missing, "1 error"]
    (tmp_path / "none.pem").write_text("")
    result = CliRunner().invoke(check, [str(tmp_path), "--connect"], standalone_mode=False)
    held.close()
    assert [line for line in result.stdout.splitlines() if "sources." in line] == [
        f"FAIL  sources.a  127.0.0.1:{port}  Address already in use",
        "ok    sources.b  127.0.0.1:0  free to listen on; the certificate and its key fit",
        "FAIL  sources.c  127.0.0.1:0  cert_file, key_file: not a certificate with its key"
        " (key values mismatch)",
        "FAIL  sources.d  127.0.0.1:0  cert_file, key_file: not a certificate with its key (pem lib)",
        "FAIL  sources.e  192.0.2.1:7001  Cannot assign requested address",
    ]


def test_every_kind_of_source_is_wired() -> None:
    for kind, wired in SOURCES.items():
        assert wired.config.__struct_config__.tag == kind
        assert callable(wired.load())
    with pytest.raises(ConfigError) as error:
        source_kind("mqt")
    known = "files, http, kafka, mqtt, opcua, tcp"
    assert str(error.value) == f"unknown kind 'mqt'; did you mean 'mqtt'? known: {known}"


@pytest.mark.parametrize("kind", SOURCES)
def test_the_sample_of_a_connector_is_a_plant(kind: str) -> None:
    files = read_folder(BASE)
    sample = (ROOT / "connectors" / kind / "sample.yaml").read_bytes()
    problems = load_plant(files | {"plant.yaml": b"plant: line\n" + sample}, {"MQTT_PASSWORD": "x"})[1]
    assert [one.text for one in problems.errors if not one.text.startswith("cannot read the file")] == []
