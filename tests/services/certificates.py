"""A certificate authority, a server's and a client's certificate, made for a test, in PEM files."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """The files in a folder: ca.pem, other-ca.pem, server.pem (with its key), client.pem, client.key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.other_ca = folder / "ca.pem", folder / "other-ca.pem"
        self.server, self.client, self.client_key = (
            folder / "server.pem",
            folder / "client.pem",
            folder / "client.key",
        )
        key = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("authority", key, None, key)
        self.ca.write_bytes(_pem(authority))
        other = ec.generate_private_key(ec.SECP256R1())
        self.other_ca.write_bytes(_pem(_certificate("another authority", other, None, other)))
        own = ec.generate_private_key(ec.SECP256R1())
        self.server.write_bytes(_key(own) + _pem(_certificate("localhost", own, authority, key)))
        mine = ec.generate_private_key(ec.SECP256R1())
        self.client.write_bytes(_pem(_certificate("client", mine, authority, key)))
        self.client_key.write_bytes(_key(mine))

    def properties(self) -> str:
        """What a broker is told for its listener LOGIN."""
        login = "listener.name.login"
        return f"""{login}.sasl.enabled.mechanisms=SCRAM-SHA-512
{login}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
{login}.ssl.keystore.type=PEM
{login}.ssl.keystore.location={self.server}
{login}.ssl.truststore.type=PEM
{login}.ssl.truststore.location={self.ca}
{login}.ssl.client.auth=required
"""


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), address]), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
