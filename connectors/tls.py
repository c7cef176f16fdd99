"""TLS of a source that listens: its certificate, and the authority that its peers must be signed by."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from connectors.errors import ConfigError


def server_context(cert_file: str | None, key_file: str | None, ca_file: str | None) -> ssl.SSLContext:
    """What a listener needs, TLS 1.2 or newer; with `ca_file` a peer without a certificate of that
    authority is refused. Reads the files. Raises `ConfigError` that names the file which is wrong."""
    if cert_file is None or key_file is None:
        raise ConfigError("tls: a server needs cert_file and key_file")
    for key, path in (("cert_file", cert_file), ("key_file", key_file), ("ca_file", ca_file)):
        try:
            if path is not None:
                Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{key}: {path}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # a key that wants a passphrase must not ask at a terminal
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"cert_file, key_file: not a certificate with its key ({_reason(error)})"
        ) from error
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError as error:
            raise ConfigError(f"ca_file: {ca_file}: no certificate in it ({_reason(error)})") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def in_folder(folder: Path, name: str | None) -> str | None:
    """A path of the plant folder as the process can open it."""
    return None if name is None else str(folder / name)


def _reason(error: Exception) -> str:
    told = getattr(error, "reason", None) or re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", str(error))
    return str(told).lower().replace("_", " ")
