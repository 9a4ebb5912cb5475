"""Certificate authority of a test, and its certificates: EC P-256 keys, valid for one day, as PEM files."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Names of a server on this machine.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EARLIER = timedelta(minutes=5)  # so that a clock a little behind takes it too
_VALID = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority, whose own certificate is the file `ca`."""

    ca: Path
    _certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    def issue(self, name: str, *, hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """Write a certificate and its key beside `ca`; return their paths, NAME.pem and NAME.key.

        `name` is its common name; `hosts` are the names and addresses that a server answers to, none for a client.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(name, self._certificate.subject, key.public_key(), is_authority=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(_host, hosts)), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = self.ca.with_name(f"{name}.pem"), self.ca.with_name(f"{name}.key")
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        _write_key(paths[1], key)
        return paths


def make_authority(folder: Path, name: str = "ca") -> Authority:
    """Return a new authority, and write its certificate into a folder, NAME.pem; its key is never written."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = _certificate(name, subject, key.public_key(), is_authority=True).sign(key, hashes.SHA256())
    path = folder / f"{name}.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return Authority(path, certificate, key)


def _certificate(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool
) -> x509.CertificateBuilder:
    """Return the common part of all certificates."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _host(host: str) -> x509.GeneralName:
    """Return an address or a name of a server."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a key that only its owner may read, from the first byte on."""
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
