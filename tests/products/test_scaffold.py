"""`penstock new --from-frame`: whatever the sample, the product passes `check` and decodes it."""

from __future__ import annotations

import binascii
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError
from flows.check_command import check_folder, check_product
from flows.new_command import new, read_sample, sample_of
from flows.plant_file import Product
from flows.scaffold import Sample, scaffold
from flows.scaffold_binary import CHECKS, find_check, value_of

RTU = "11 03 12 80 00 43 66 48 00 C4 9C CD 15 07 5B 13 86 FF DD 00 05 00 61"


def made(folder: Path, sample: Sample) -> tuple[str, Product]:
    """The text of the product, and the product after `check` and its vector passed."""
    text = scaffold("sample", sample)
    path = folder / "sample.yaml"
    path.write_text(text, encoding="utf-8")
    (product,), problems = check_product(path)
    assert problems.render() == ""
    assert len(product.vectors) == 1
    return text, product


def test_a_binary_frame_with_a_check(tmp_path: Path) -> None:
    text, product = made(tmp_path, read_sample(RTU, 3))
    assert "check: {crc16: {poly: 0x8005, init: 0xFFFF, reflect: true, at: -2, order: le}}" in text
    assert "- when: {length: 23, port: 3}" in text
    assert "f32ws 230.5" in text
    assert len(product.metrics) == 21
    assert product.vectors[0].values is not None
    assert product.vectors[0].values["byte01"] == 3


@pytest.mark.parametrize(
    ("name", "wanted"),
    [  # of the nine digits "123456789": https://reveng.sourceforge.io/crc-catalogue/all.htm
        ("CRC-32", 0xCBF43926),
        ("CRC-32/BZIP2", 0xFC891918),
        ("CRC-32/MPEG-2", 0x0376E6E7),
        ("CRC-32C", 0xE3069283),
        ("Modbus", 0x4B37),
        ("CRC-16/ARC", 0xBB3D),
        ("CRC-16/USB", 0xB4C8),
        ("CRC-16/UMTS", 0xFEE8),
        ("CCITT-FALSE", 0x29B1),
        ("XMODEM", 0x31C3),
        ("KERMIT", 0x2189),
        ("X.25", 0x906E),
        ("AUG-CCITT", 0xE5CC),
        ("GENIBUS", 0xD64E),
        ("DNP", 0xEA82),
        ("EN 13757", 0xC2B7),
        ("CRC-8", 0xF4),
        ("CRC-8/MAXIM", 0xA1),
        ("CRC-8/SAE-J1850", 0x4B),
        ("CRC-8/NRSC-5", 0xF7),
        ("sum of bytes", 0xDD),
        ("XOR of bytes", 0x31),
    ],
)
def test_every_check_is_known_found_and_decoded(tmp_path: Path, name: str, wanted: int) -> None:
    check = next(one for one in CHECKS if one.name == name)
    assert value_of(check, b"123456789") == wanted
    width = int("".join(filter(str.isdigit, check.kind))) // 8
    frame = b"\xaa\x55\x01\x80\xff\x07"
    frame += value_of(check, frame).to_bytes(width, "little")
    assert find_check(frame) is not None
    text, _ = made(tmp_path, Sample(frame))
    assert "  check: {" in text


def test_a_frame_without_a_check(tmp_path: Path) -> None:
    text, product = made(tmp_path, Sample(bytes.fromhex("01756403673401") + b"\x04\x68\x73"))
    assert "\n  check:" not in text
    assert len(product.metrics) == 10
    text, product = made(tmp_path, Sample(bytes(300)))
    assert len(product.metrics) == 129


def test_json_paths_types_and_time(tmp_path: Path) -> None:
    body = {
        "ts": 1_772_355_600,
        "dev": {"temp": 21.5, "on": True, "label": "x", "odd name": 3, "list": [1, {"a": None}]},
        "other": {"temp": -3, "no": "NO", "v": 1e300},
    }
    text, product = made(tmp_path, read_sample(json.dumps(body)))
    assert "timestamp: {path: ts, unit: s}" in text
    assert {name: metric.type for name, metric in product.metrics.items()} == {
        "temp": "number",
        "on": "boolean",
        "label": "string",
        "odd name": "number",
        "list_0": "number",
        "a": "number",
        "other_temp": "number",
        "no": "string",
        "v": "number",
    }


def test_csv_columns(tmp_path: Path) -> None:
    sample = sample_of(b"Zeit;temp;Drehzahl;state\n01.03.2026 09:00:00;21,5;1480;run\n")
    text, product = made(tmp_path, sample)
    assert 'timestamp: {column: Zeit, format: "%d.%m.%Y %H:%M:%S"}' in text
    assert 'decimal: ","' in text
    assert list(product.metrics) == ["temp", "Drehzahl", "state"]
    text, product = made(tmp_path, sample_of(b"2026-03-01T09:00:00Z,21.5,true\n"))
    assert list(product.metrics) == ["column2", "column3"]


def test_samples_in_files(tmp_path: Path) -> None:
    line = {"ingest_ts": 1, "payload_hex": "0102", "port": 7}
    assert sample_of(json.dumps(line).encode()) == Sample(b"\x01\x02", "", 7)
    assert sample_of(json.dumps({"payload": "a,b", "headers": {"csv": "x,y"}}).encode()) == Sample(
        b"a,b", "x,y"
    )
    assert sample_of(b"01 02\n0A") == Sample(b"\x01\x02\x0a")
    assert sample_of(b"\x01\x02\n") == Sample(b"\x01\x02\n")
    with pytest.raises(ConfigError, match="neither hexadecimal nor a file"):
        read_sample("nowhere.bin")


@pytest.mark.parametrize("payload", [b"", b"{}", b"[", b'{"a": NaN}', b'{"a": {}}'])
def test_samples_of_which_nothing_can_be_made(payload: bytes) -> None:
    with pytest.raises(ConfigError):
        scaffold("sample", Sample(payload))


def test_the_command(tmp_path: Path) -> None:
    plant = tmp_path / "line"
    for product, frame in (("rtu", RTU), ("app", '{"temp": 3}')):
        ran = CliRunner().invoke(new, [str(plant), "--product", product, "--from-frame", frame])
        assert ran.exit_code == 0, ran.output
    loaded, problems = check_folder(plant)
    assert loaded is not None, problems.render()
    assert list(loaded.products) == ["app", "rtu"]
    ran = CliRunner().invoke(new, [str(plant), "--product", "rtu", "--from-frame", RTU])
    assert isinstance(ran.exception, ConfigError)
    assert "exists already" in str(ran.exception)


SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text()
BODIES = st.dictionaries(
    st.text(),
    st.recursive(SCALARS, lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=8),
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(payload=st.binary(min_size=1, max_size=40) | BODIES.map(lambda body: json.dumps(body).encode()))
def test_any_sample_gives_a_product_that_decodes_it(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        made(folder, Sample(payload))
    except ConfigError:
        assert b"{" in payload or b"[" in payload, binascii.hexlify(payload)
