"""A source's own certificate, made once: what servers were told to trust stays what it is.

It depends on neither the machine's name, which is another in every container, nor on how exact the
clocks are: it is valid from a week before it was made, and for twenty years.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCKS_DIFFER: Final = timedelta(days=7)
VALID: Final = timedelta(days=20 * 365)
KEY_BITS: Final = 2048  # the most that all three security policies take


def make(certificate: Path, key: Path, uri: str) -> None:
    """Write both files, the certificate last; a crash leaves neither, or the key alone. Raises `OSError`."""
    own = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    signed = _signed(own, uri)
    _write(key, own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(certificate, signed.public_bytes(Encoding.DER))


def _signed(key: rsa.RSAPrivateKey, uri: str) -> x509.Certificate:
    """OPC 10000-6, 6.2.2: an application instance certificate, signed by itself."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uri[:64])])
    serial = x509.random_serial_number()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(serial)
    builder = builder.not_valid_before(now - CLOCKS_DIFFER).not_valid_after(now + VALID)
    host = x509.DNSName(socket.gethostname().encode("ascii", "replace").decode() or "localhost")
    extensions: list[x509.ExtensionType] = [
        identifier,
        x509.AuthorityKeyIdentifier(identifier.digest, [x509.DirectoryName(name)], serial),
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), host]),
        x509.BasicConstraints(ca=True, path_length=0),
        usage,
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
    ]
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(beside, path)
