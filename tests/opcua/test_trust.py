"""Certificates: which servers are trusted, and what is said where a server does not trust us."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from connectors.errors import AuthError, ConfigError
from connectors.opcua.check import try_server
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.security import Identity
from connectors.source import Surroundings
from tests.opcua.running import Running, configured
from tests.services.certificates import Certificates
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OpcuaServer

NODE = ("press-01", "tempC", "Double", 20.5)
CSV = f"node_id,device_id,metric\nnsu={NAMESPACE};s=press-01.tempC,press-01,tempC\n"
lacking = why_not()
needs_server = pytest.mark.skipif(lacking is not None, reason=str(lacking))


def identity(folder: Path) -> Identity:
    config = OpcuaConfig(endpoint="opc.tcp://plc", nodes="n", security="Basic256Sha256", trust="trusted")
    return Identity("scada", config, Surroundings("plant", folder, folder / "data"))


def test_who_is_trusted(tmp_path: Path) -> None:
    """The very certificate, or one that an authority in the folder has signed; not another authority's."""
    made = Certificates(tmp_path / "made")
    (server,) = x509.load_pem_x509_certificates(made.client.read_bytes())
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "broken.der").write_bytes(b"no certificate")
    shutil.copy(made.other_ca, trusted / "other.pem")
    with pytest.raises(
        AuthError, match="the server's certificate is not trusted; if it is the right one, move"
    ):
        identity(tmp_path).check(server)
    (refused,) = (tmp_path / "data" / "opcua" / "scada" / "refused").iterdir()
    shutil.copy(made.ca, trusted / "ca.crt")
    identity(tmp_path).check(server)
    (trusted / "ca.crt").unlink()
    shutil.move(refused, trusted)
    identity(tmp_path).check(server)


def test_an_own_certificate_that_names_no_application(tmp_path: Path) -> None:
    """Neither one that names other things, nor one without any extension, as old tools make them."""
    made = Certificates(tmp_path / "made")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "line")])
    now = datetime.now(UTC)
    bare = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    bare = bare.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    (tmp_path / "bare.pem").write_bytes(bare.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    for path in (tmp_path / "bare.pem", made.client):
        config = OpcuaConfig(
            endpoint="opc.tcp://plc", nodes="n", security="Basic256Sha256", trust="trusted",
            cert_file=str(path), key_file=str(made.client_key),
        )  # fmt: skip
        own = Identity("scada", config, Surroundings("plant", tmp_path, tmp_path / "data"))
        with pytest.raises(ConfigError) as told:
            asyncio.run(own.prepare())
        assert str(told.value) == f"cert_file: {path} names no application URI"


def test_an_own_certificate_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server trusts this very one: neither another name of the machine nor of the plant makes another."""
    own = identity(tmp_path)
    asyncio.run(own.prepare())
    assert own.key.stat().st_mode & 0o777 == 0o600
    files = [own.certificate.read_bytes(), own.key.read_bytes()]
    made = x509.load_der_x509_certificate(files[0])
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:penstock:plant:scada"]
    now = datetime.now(UTC)
    assert made.not_valid_before_utc < now - timedelta(days=1)  # of a server whose clock is slow
    assert made.not_valid_after_utc > now + timedelta(days=15 * 365)
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    for plant in ("plant", "renamed"):
        again = Identity("scada", own.config, Surroundings(plant, tmp_path, tmp_path / "data"))
        asyncio.run(again.prepare())
        assert again.uri == "urn:penstock:plant:scada"
        assert [own.certificate.read_bytes(), own.key.read_bytes()] == files
    own.certificate.unlink()  # as after a crash between the two
    asyncio.run(identity(tmp_path).prepare())
    assert own.certificate.read_bytes() != files[0]


@needs_server
def test_a_server_that_does_not_trust_us(tmp_path: Path) -> None:
    server = OpcuaServer(tmp_path / "server", [NODE], strict=True)
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "server.der").write_bytes(server.certificate)
    config = configured(server.endpoint, security="Aes256Sha256RsaPss", trust="trusted")
    own = tmp_path / "data" / "opcua" / "scada" / "own.der"
    told = f"it may not trust us: put {own} among the certificates that it trusts"

    async def play() -> None:
        async with Running(tmp_path, config, CSV, {"tempC": "number"}) as run:
            await run.until(lambda: told in run.receiver.status.detail)

    try:
        with pytest.raises(OSError, match=r"it may not trust us: put .*own\.der among the certificates"):
            try_server(config, Surroundings("plant", tmp_path, tmp_path / "data"), "scada", CSV)
        asyncio.run(play())
    finally:
        server.close()


@needs_server
def test_a_server_with_another_certificate(tmp_path: Path) -> None:
    """After a restart with a new key the server is another until somebody says that it is not; neither user
    nor password is sent to it."""
    server = OpcuaServer(tmp_path / "server", [NODE], user="line", password="a-secret")
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "server.der").write_bytes(server.certificate)
    config = configured(
        server.endpoint, security="Basic256Sha256", trust="trusted", username="line", password="a-secret"
    )

    async def play() -> None:
        async with Running(tmp_path, config, CSV, {"tempC": "number"}) as run:
            await run.until(lambda: bool(run.values()))
            server.kill()
            shutil.rmtree(tmp_path / "server" / "pki")
            server.start()
            await run.until(lambda: "the server's certificate is not trusted" in run.receiver.status.detail)
            heard = len(run.appender.frames)
            (refused,) = (tmp_path / "data" / "opcua" / "scada" / "refused").iterdir()
            refused.rename(tmp_path / "trusted" / refused.name)
            await run.until(lambda: len(run.appender.frames) > heard)

    try:
        asyncio.run(play())
    finally:
        server.close()
