"""What plant.yaml names beside the plant's own files is looked for by `check`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.check_command import check_folder

PRODUCT = "productId: p\nversion: 1\ndecode: {format: json, metrics: data}\nmetrics: {t: {}}\n"
PLANT = """\
plant: paths
sources:
  m: {kind: mqtt, host: h, subscribe: ["a/#"], tls: true, ca_file: certs/ca.pem}
  t: {kind: tcp, listen: "127.0.0.1:7001", framing: {kind: json_lines}, tls: true,
      cert_file: c.pem, key_file: /no/k.pem}
  u: {kind: opcua, endpoint: "opc.tcp://h:4840", browse: {}, trust: certs/servers}
  v: {kind: opcua, endpoint: "opc.tcp://h:4840", browse: {}, trust: "${TRUST:-c.pem}"}
  f: {kind: files, watch: c.pem, product: p}
  g: {kind: files, watch: inbox, product: p}
  k: {kind: kafka, bootstrap: "127.0.0.1:9092", topic: x, device: key, security_protocol: SSL,
      ca_file: "${CA:-away.pem}"}
"""


def told(folder: Path, plant: str) -> str:
    (folder / "products").mkdir(parents=True, exist_ok=True)
    (folder / "products" / "p.yaml").write_text(PRODUCT)
    (folder / "plant.yaml").write_text(plant)
    return check_folder(folder)[1].render()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("")
    missing = "is not there, so no server is trusted yet"
    assert told(tmp_path, PLANT).splitlines() == [
        "plant.yaml:3:68  sources.m.ca_file: no file 'certs/ca.pem', seen from the plant's folder",
        "plant.yaml:5:35  sources.t.key_file: no file '/no/k.pem'",
        f"plant.yaml:6:69  sources.u.trust: warning: 'certs/servers' {missing}",
        "plant.yaml:7:69  sources.v.trust: warning: '${TRUST:-c.pem}' is no folder",
        "plant.yaml:8:27  sources.f.watch: 'c.pem' is no folder",
        "plant.yaml:11:16  sources.k.ca_file: no file '${CA:-away.pem}', seen from the plant's folder",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="waived: root can read and write everything")
def test_what_this_user_may_not_touch(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir(mode=0o500)
    (tmp_path / "ca.pem").touch(mode=0)
    plant = (
        "plant: paths\nsources:\n"
        '  m: {kind: mqtt, host: h, subscribe: ["a/#"], tls: true, ca_file: ca.pem}\n'
        "  f: {kind: files, watch: inbox, product: p}\n"
    )
    why = "cannot be written, so files that are read could not be put away"
    assert told(tmp_path, plant).splitlines() == [
        "plant.yaml:3:68  sources.m.ca_file: 'ca.pem' cannot be read by this user",
        f"plant.yaml:4:27  sources.f.watch: 'inbox' {why}",
    ]


def test_a_plant_with_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "certs" / "servers").mkdir(parents=True)
    for name in ("certs/ca.pem", "c.pem"):
        (tmp_path / name).write_text("")
    plant = (
        "plant: paths\nsources:\n"
        '  m: {kind: mqtt, host: h, subscribe: ["a/#"], tls: true, ca_file: certs/ca.pem}\n'
        '  u: {kind: opcua, endpoint: "opc.tcp://h:4840", browse: {}, trust: certs/servers}\n'
        "  g: {kind: files, watch: inbox, product: p}\n"
    )
    assert told(tmp_path, plant) == ""
