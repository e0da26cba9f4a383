"""A key and a certificate for one's own cluster: who has the folder may speak to its scheduler and workers, nobody else."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from wsikit.errors import UsageError, how_to_install
from wsikit.store.durable import disk_errors

KEY, CERTIFICATE = "key.pem", "cert.pem"
_DAYS = 365


def make_tls(folder: Path) -> dict[str, Path]:
    """Write a new key (readable by its owner only) and a self-signed certificate, which is its own authority; returns both files.

    Raises
    ------
    UsageError
        The folder has a key already, or the library ``cryptography`` (extra ``cluster``) is missing.
    OutputError
        The folder cannot be written.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as e:
        raise UsageError(f"certificates are made by the library cryptography; {how_to_install('cluster')}") from e
    if (folder / KEY).exists():
        raise UsageError(f"{folder / KEY}: there already; running clusters use it. Give another folder, or remove it")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wsikit cluster")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, start + dt.timedelta(days=_DAYS))
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / KEY).touch(mode=0o600, exist_ok=False)  # before there is anything to read in it
        (folder / KEY).write_bytes(secret)
        (folder / CERTIFICATE).write_bytes(certificate.public_bytes(pem))
    return {"key": folder / KEY, "certificate": folder / CERTIFICATE}


def tls_files(folder: Path) -> dict[str, str]:
    """Arguments of `distributed.security.Security` for a folder of `make_tls`.

    Raises
    ------
    UsageError
        It holds no key and certificate.
    """
    key, certificate = folder / KEY, folder / CERTIFICATE
    if not key.is_file() or not certificate.is_file():
        raise UsageError(f"{folder}: no {KEY} and {CERTIFICATE} in it; make them with wsikit cluster init {folder}")
    files = {"tls_ca_file": str(certificate)}
    for role in ("client", "scheduler", "worker"):
        files |= {f"tls_{role}_key": str(key), f"tls_{role}_cert": str(certificate)}
    return files
