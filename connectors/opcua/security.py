"""Who we are to a server, and which servers we take for what they say."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies, uacrypto
from asyncua.ua.uaerrors import UaError
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from connectors.errors import AuthError, ConfigError
from connectors.opcua import own_certificate
from connectors.opcua.config import OpcuaConfig
from connectors.source import Surroundings

SOON: Final = timedelta(days=30)

log = logging.getLogger(__name__)


def quiet() -> None:
    """asyncua's loggers say nothing: what matters is told by who uses it."""
    for name in ("asyncua", "asyncua.common.subscription", "asyncua.client", "asyncua.client.ua_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class Identity:
    """A source's own certificate, and the folder of those that it trusts.

    `DATA/opcua/SOURCE/` holds `own.der`, `own.pem` (the key), and in `refused/` the certificates of servers
    that were not trusted, to be moved into the trust folder by whoever knows them.
    """

    def __init__(self, name: str, config: OpcuaConfig, surroundings: Surroundings) -> None:
        self.config = config
        self.uri = f"urn:penstock:{surroundings.plant}:{name}"
        self.folder = surroundings.data / "opcua" / name
        base = surroundings.folder
        self.certificate = base / config.cert_file if config.cert_file else self.folder / "own.der"
        self.key = base / config.key_file if config.key_file else self.folder / "own.pem"
        self.trust = base / config.trust if config.trust else None
        if config.security != "none" and self.trust is None:
            raise ConfigError(f"source {name}: security {config.security} needs 'trust', a folder")
        if (config.cert_file is None) != (config.key_file is None):
            raise ConfigError(f"source {name}: 'cert_file' and 'key_file' go together")

    async def prepare(self) -> None:
        """Make the own certificate if there is none; one that is there stays. Raises `ConfigError`."""
        if self.config.security == "none":
            return
        said = "cert_file: " if self.config.cert_file is not None else ""
        try:
            if self.config.cert_file is None and not (self.certificate.exists() and self.key.exists()):
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                own_certificate.make(self.certificate, self.key, self.uri)
            own = await uacrypto.load_certificate(self.certificate)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{said}{self.certificate}: {error}") from error
        if (last := own.not_valid_after_utc) < datetime.now(UTC) + SOON:
            log.warning("our certificate %s is valid until %s only: %s", self.certificate, f"{last:%Y-%m-%d}",
                        "put another in its place, and let the server trust it")  # fmt: skip
        uris: list[str] = []
        with suppress(x509.ExtensionNotFound):
            names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if not uris:
            raise ConfigError(f"{said}{self.certificate} names no application URI")
        self.uri = uris[0]

    def check(self, certificate: x509.Certificate) -> None:
        """Raises `AuthError` for a server's certificate that nobody put into the trust folder."""
        assert self.trust is not None
        why = ""
        now = datetime.now(UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            why = f"is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        elif not any(_vouches(one, certificate) for one in _certificates(self.trust)):
            name = certificate.fingerprint(hashes.SHA256()).hex()[:16]
            refused = self.folder / "refused" / f"{name}.der"
            refused.parent.mkdir(parents=True, exist_ok=True)
            refused.write_bytes(certificate.public_bytes(Encoding.DER))
            why = f"is not trusted; if it is the right one, move {refused} into {self.trust}"
        if why:
            raise AuthError(f"the server's certificate {why}")


def _certificates(folder: Path) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.suffix.lower() in (".der", ".crt", ".cer", ".pem"):
            content = path.read_bytes()
            with suppress(ValueError):
                if b"-----BEGIN" in content:
                    found += x509.load_pem_x509_certificates(content)
                else:
                    found.append(x509.load_der_x509_certificate(content))
    return found


def _vouches(trusted: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether it is the same certificate, or that of an authority that signed it."""
    if trusted == certificate:
        return True
    with suppress(x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        if trusted.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            certificate.verify_directly_issued_by(trusted)
            return True
    return False


async def secure(client: Client, config: OpcuaConfig, identity: Identity) -> None:
    """Set a client's security before it connects. The server's certificate is checked before anything
    is sent that only this server may read."""
    if config.security == "none":
        return
    policy: Any = getattr(security_policies, f"SecurityPolicy{config.security}")
    mode = getattr(ua.MessageSecurityMode, config.mode)
    endpoints = await client.connect_and_get_server_endpoints()
    offered = [one for one in endpoints if one.SecurityPolicyUri == policy.URI and one.SecurityMode == mode]
    if not offered:
        raise AuthError(f"the server offers no {config.security} with {config.mode}")
    certificate: x509.Certificate | None = uacrypto.x509_from_der(  # type: ignore[no-untyped-call]
        offered[0].ServerCertificate
    )
    if certificate is None:
        raise AuthError("the server has no certificate")
    identity.check(certificate)
    await client.set_security(
        policy,
        str(identity.certificate),
        str(identity.key),
        server_certificate=uacrypto.CertProperties(certificate.public_bytes(Encoding.DER), "DER"),
        mode=mode,
    )


async def connect(client: Client, config: OpcuaConfig, identity: Identity) -> None:
    """Connect with the source's security and user. Raises `OSError`, `UaError`, and `ConnectError` where it
    looks as if the server did not trust us: servers say so by hanging up."""
    if config.username is not None:
        client.set_user(config.username)
        client.set_password(config.password or "")
    await secure(client, config, identity)
    try:
        await client.connect()
    except (ConnectionError, UaError) as error:
        if config.security == "none" or (isinstance(error, UaError) and not _of_trust(error)):
            raise
        raise AuthError(
            f"the server ends the connection ({_named(error)}); it may not trust us: put "
            f"{identity.certificate} among the certificates that it trusts"
        ) from error


def _of_trust(error: UaError) -> bool:
    return any(word in type(error).__name__ for word in ("Certificate", "SecurityChecks", "ConnectionClosed"))


def _named(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, UaError) else str(error) or type(error).__name__
