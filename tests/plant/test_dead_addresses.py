"""`penstock check --connect` where nobody, or somebody else, is at an address: what it says, and that it
comes back."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows import check_connect
from flows.check_command import check
from tests.ports import free_port
from tests.receivers.certificates import Authority

PRODUCT = "productId: p\nversion: 1\ndecode: {format: json, metrics: data}\nmetrics: {t: {}}\n"
NO_ANSWER = "no answer within 5 s"
SAID = {
    "dead": {
        "mqtt": "Connection refused",
        "opcua": "Connection refused",
        "kafka": "Kafka: Connection refused",
        "clickhouse": "Connection refused",
    },
    "mute": {"mqtt": NO_ANSWER, "opcua": NO_ANSWER, "kafka": f"Kafka: {NO_ANSWER}", "clickhouse": NO_ANSWER},
    "hanging up": {
        "mqtt": "the connection ended instead of an answer; is it the broker's port, and does tls fit?",
        "opcua": "the connection ended instead of an answer; is it the port of an OPC UA server?",
        "kafka": "Kafka: no broker is reached",
        "clickhouse": "what answers speaks no HTTP; 8123 is ClickHouse's port for it",
    },
    "a web server": {
        "mqtt": "the connection ended instead of an answer; is it the broker's port, and does tls fit?",
        "opcua": "the connection ended instead of an answer; is it the port of an OPC UA server?",
        "kafka": "Kafka: what answers is no Kafka broker",
        "clickhouse": "what answers is no ClickHouse: 400 to SELECT 1",
    },
}


@contextmanager
def answering(how: str) -> Iterator[int]:
    """A port at which every connection is treated so."""
    if how == "dead":
        yield free_port()
        return
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve(peer: socket.socket) -> None:
        with suppress(OSError):
            peer.recv(1000)
            if how == "a web server":
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        peer.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                kept.append(peer)
                if how != "mute":
                    threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for peer in kept:
            peer.close()


def tried(folder: Path, sources: list[str], rest: str = "") -> tuple[int, dict[str, str]]:
    (folder / "products").mkdir(parents=True, exist_ok=True)
    (folder / "products" / "p.yaml").write_text(PRODUCT)
    lines = ["plant: dead", "sources:", *(f"  {source}" for source in sources), rest]
    (folder / "plant.yaml").write_text("\n".join(lines) + '\nserver: {listen: "127.0.0.1:0"}\n')
    done = CliRunner().invoke(check, [str(folder), "--connect", "--json"], standalone_mode=False)
    answers = json.loads(done.stdout)["connect"]
    return int(done.return_value), {one["what"]: one["result"] for one in answers}


@pytest.mark.parametrize("how", list(SAID))
def test_what_is_said_of_an_address(how: str, tmp_path: Path) -> None:
    with answering(how) as port:
        code, said = tried(
            tmp_path / "plant",
            [
                f'mqtt: {{kind: mqtt, host: 127.0.0.1, port: {port}, subscribe: ["a/#"]}}',
                f'opcua: {{kind: opcua, endpoint: "opc.tcp://127.0.0.1:{port}", browse: {{}}}}',
                f'kafka: {{kind: kafka, bootstrap: "127.0.0.1:{port}", topic: frames, device: key}}',
            ],
            f'historian: {{url: "http://127.0.0.1:{port}"}}',
        )
    assert code == 3
    found = {"clickhouse": said["historian"]}
    found |= {kind: said[f"sources.{kind}"].replace(str(port), "PORT") for kind in ("mqtt", "opcua", "kafka")}
    assert found == SAID[how]
    assert said["server"] == "free to listen on"


def test_names_and_own_addresses(tmp_path: Path) -> None:
    """A name that nobody knows; addresses that are taken, or another machine's."""
    nobody = "no-such-host.invalid"
    with ExitStack() as held:
        taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [one.getsockname()[1] for one in taken]
        code, said = tried(
            tmp_path / "plant",
            [
                f'mqtt: {{kind: mqtt, host: {nobody}, subscribe: ["a/#"]}}',
                f'opcua: {{kind: opcua, endpoint: "opc.tcp://{nobody}:4840", browse: {{}}}}',
                f'kafka: {{kind: kafka, bootstrap: "{nobody}:9092", topic: frames, device: key}}',
                f'tcp: {{kind: tcp, listen: "127.0.0.1:{ports[0]}", framing: {{kind: json_lines}}}}',
                f'http: {{kind: http, listen: "127.0.0.1:{ports[1]}"}}',
                'other: {kind: tcp, listen: "192.0.2.1:7001", framing: {kind: json_lines}}',
            ],
            f'historian: {{listen: "127.0.0.1:{ports[2]}"}}',
        )
    assert code == 3
    unknown = ("Name or service not known", "Temporary failure in name resolution")  # without a resolver
    assert said["sources.mqtt"] in unknown
    assert said["sources.opcua"] in unknown
    assert said["sources.kafka"].removeprefix("Kafka: ") in unknown
    for name in ("sources.tcp", "sources.http", "historian"):
        assert said[name] == "Address already in use"
    assert said["sources.other"] == "Cannot assign requested address"


def test_tls_that_does_not_fit(tmp_path: Path) -> None:
    """TLS where none is spoken, none where it is, and a certificate of another authority."""
    folder = tmp_path / "plant"
    folder.mkdir()
    Authority(folder, "theirs")
    ours = Authority(folder, "ours")
    ours.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    with answering("a web server") as plain, speaking_tls(context) as port:
        source = 'kind: mqtt, host: 127.0.0.1, subscribe: ["{}/#"]'
        code, said = tried(
            folder,
            [
                f"a: {{{source.format('a')}, port: {plain}, tls: true, ca_file: ours.pem}}",
                f"b: {{{source.format('b')}, port: {port}}}",
                f"c: {{{source.format('c')}, port: {port}, tls: true, ca_file: theirs.pem}}",
                f"d: {{{source.format('d')}, port: {port}, tls: true}}",
            ],
            f'historian: {{url: "https://127.0.0.1:{port}"}}',
        )
    assert code == 3
    nobody = "TLS: unable to get local issuer certificate; "
    mend = "'ca_file' names the authority that signed its certificate"
    ended = "the connection ended instead of an answer; is it the broker's port, and does tls fit?"
    assert said["sources.a"] in (ended, "TLS: wrong version number")
    assert said["sources.b"] == ended
    assert said["sources.c"] == said["sources.d"] == nobody + mend
    assert said["historian"] == f"{nobody}SSL_CERT_FILE names the file of the authority that signed it"


@contextmanager
def speaking_tls(context: ssl.SSLContext) -> Iterator[int]:
    """A port at which a handshake is tried with everybody, and nothing is said after it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake(peer: socket.socket) -> None:
            with suppress(OSError), context.wrap_socket(peer, server_side=True) as secured:
                secured.recv(1)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=shake, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def test_what_never_comes_back_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the system looks up for minutes holds up nothing but its own line."""
    hold = threading.Event()
    monkeypatch.setattr(check_connect, "LONGEST_S", 3.0)
    monkeypatch.setattr(check_connect, "_mqtt", lambda *_: str(hold.wait(60)))
    code, said = tried(tmp_path / "plant", ['mqtt: {kind: mqtt, host: h, subscribe: ["a/#"]}'])
    hold.set()
    assert code == 3
    assert said["sources.mqtt"] == "no end of it within 3 s"
    assert said["server"] == "free to listen on"
