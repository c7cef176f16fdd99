"""Golden vectors of product files: what they compare, and how a difference is told."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from flows.check_command import check, check_product
from flows.new_command import write_starter
from flows.test_command import test as run_tests
from flows.vectors import equal

HEAD = """\
productId: dev
version: 1
decode:
  format: binary
  cases:
    - when: {byte: {0: 0xEE}}
      ignore: true
    - when: {port: 2}
      records: none
    - else:
        fields:
          tempC: {at: 0, as: s16, scale: 0.1}
          rpm: {as: u16}
          mode: {map: {0: idle, 1: run}}
metrics: {tempC: {}, rpm: {}, mode: {type: string}}
vectors:
""".replace("    - when: {port: 2}\n      records: none\n", "")


def told(tmp_path: Path, vectors: str, head: str = HEAD) -> list[str]:
    path = tmp_path / "dev.yaml"
    path.write_text(head + vectors)
    return [line.partition(":")[2] for line in check_product(path)[1].render().splitlines()]


def test_what_fits_is_silent(tmp_path: Path) -> None:
    vectors = """\
  - {name: running, hex: "00 EA 05C8 01", values: {tempC: 23.4, rpm: 1480, mode: run}}
  - {hex: "0x00EA05C801", readings: [{values: {tempC: 23.4}, absent: []}]}
  - {hex: "00 EA 05", reject: short, offset: 2}
  - {hex: "EE", ignored: true}
"""
    assert told(tmp_path, vectors) == []


def test_differences_are_told_with_place_and_bytes(tmp_path: Path) -> None:
    vectors = """\
  - {hex: "00 EA 05C8 01", values: {tempC: 23.5, rpm: 1480, mode: idle}}
  - {hex: "00 EA 05", values: {tempC: 23.4}}
  - {hex: "00 EA 05", reject: check}
  - {hex: "00 EA 05", reject: short, offset: 3}
  - {hex: "00 EA 05C8 01", reject: short}
  - {hex: "00 EA 05C8 01", ignored: true}
  - {hex: "EE", values: {tempC: 1}}
  - {hex: "00 EA 05C8 01", values: {tempC: 23.4}, absent: [rpm]}
"""
    short = "the frame ends before the field at byte 2"
    all_values = 'tempC = 23.4, rpm = 1480, mode = "run"'
    assert told(tmp_path, vectors) == [
        "15:44  vectors[0].values.tempC: expected 23.5, got 23.4, from bytes 0..1: 00 EA",
        '15:67  vectors[0].values.mode: expected "idle", got "run", from byte 4: 01',
        f"16:5  vectors[1]: the frame is rejected: short: {short}",
        f"17:31  vectors[2].reject: expected check, but the frame is rejected as short: {short}",
        f"18:46  vectors[3].offset: expected 3, but the frame is rejected at byte 2: {short}",
        f"19:36  vectors[4].reject: expected a reject short, but 1 reading came out: {all_values}",
        "20:37  vectors[5].ignored: 1 reading came out; expected: the layout ignores the frame",
        "21:25  vectors[6].values: expected 1 reading, but 0 readings came out",
        "22:60  vectors[7].absent[0]: expected to be absent, got 1480",
    ]


def test_what_a_vector_says_wrongly(tmp_path: Path) -> None:
    vectors = """\
  - {values: {tempC: 1}}
  - {hex: "0", values: {tempC: 1}}
  - {hex: "00"}
  - {hex: "00", values: {tempC: 1}, ignored: true}
  - {hex: "00", reject: shrt}
  - {hex: "00", values: {temp: 1}}
  - {hex: "00", values: {tempC: 1}, time: noon}
"""
    assert told(tmp_path, vectors) == [
        "15:5  vectors[0]: the frame is missing; write one of hex, text and json",
        "16:11  vectors[1].hex: is not hexadecimal; pairs of digits, blanks between are fine",
        "17:5  vectors[2]: what comes out is missing; write one of values, readings, reject and ignored",
        "18:5  vectors[3]: values and ignored exclude each other; "
        "write one of values, readings, reject and ignored",
        "19:25  vectors[4].reject: no reason 'shrt' of a reject; did you mean 'short'?",
        "20:26  vectors[5].values.temp: no metric 'temp' in dev; did you mean 'tempC'?",
        '21:43  vectors[6].time: a time such as "2026-03-01T09:00:00Z" is expected',
    ]


def test_other_formats_and_times(tmp_path: Path) -> None:
    head = """\
productId: dev
version: 1
decode: {format: FORMAT, timestamp: ts, TELLS: {tempC: t}}
metrics: {tempC: {}}
vectors:
"""
    as_json = """\
  - {json: {ts: 1772355600000, t: 21.5}, values: {tempC: 21.5}, time: "2026-03-01T09:00:00Z"}
  - {text: '{"ts": 1772355600000, "t": null}', values: {tempC: null}, time: "2026-03-01T09:00:01Z"}
"""
    found = told(tmp_path, as_json, head.replace("FORMAT", "json").replace("TELLS", "metrics"))
    assert found == ["7:77  vectors[1].time: expected 2026-03-01T09:00:01.000Z, got 2026-03-01T09:00:00.000Z"]
    as_csv = """\
  - {text: "2026-03-01 09:00:00,21.5", header: "ts,t", values: {tempC: 21.5}, time: "2026-03-01T09:00:00Z"}
"""
    assert told(tmp_path, as_csv, head.replace("FORMAT", "csv").replace("TELLS", "columns")) == []


def test_check_and_test_of_a_plant_run_them(tmp_path: Path) -> None:
    plant = tmp_path / "line"
    write_starter(plant, "press")
    product = plant / "products" / "press.yaml"
    good = "\nvectors:\n  - {name: warm, json: {data: {metrics: {tempC: 20}}}, values: {tempC: 20}}\n"
    product.write_text(product.read_text() + good)
    ran = CliRunner().invoke(run_tests, [str(plant)], standalone_mode=False)
    assert ran.return_value == 0, ran.output
    assert "ok    products/press.yaml  vector 0: warm\n" in ran.output
    assert "2 of 2 passed" in ran.output
    product.write_text(product.read_text().replace("values: {tempC: 20}", "values: {tempC: 21}"))
    ran = CliRunner().invoke(run_tests, [str(plant), "--json"], standalone_mode=False)
    assert ran.return_value == 1
    told = json.loads(ran.output)["tests"][0]["differences"]
    assert len(told) == 1
    assert told[0].endswith("vectors[0].values.tempC: expected 21, got 20")
    ran = CliRunner().invoke(check, [str(plant), "--json"], standalone_mode=False)
    assert ran.return_value == 1
    assert json.loads(ran.output)["problems"][0]["path"] == "vectors[0].values.tempC"


def test_equality_of_values() -> None:
    assert equal(30.8, 30.800000000000001)
    assert equal(1, 1.0)
    assert equal(0.1 + 0.2, 0.3)
    assert not equal(0.3, 0.30000001)
    assert equal(True, 1)
    assert not equal(True, 2)
    assert not equal("1", 1)
    assert not equal(None, 0)
    assert equal(None, None)
