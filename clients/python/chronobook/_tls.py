"""Credentials of a client: TLS, and tokens, which need TLS beyond this machine."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

_LOOPBACK = re.compile(r"(?:dns:(?:///)?|ipv[46]:)?(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files, read once when a client is made. Raises ValueError for a certificate without its key.

    ca           trusted authorities; None for those of gRPC, or of the file in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH
    certificate  the client's certificate, with all intermediate ones
    key          the certificate's private key, not encrypted
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate needs its key, and a key its certificate")

    def credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's credentials. Raises OSError for an unreadable file, ValueError for an unusable one.

        gRPC itself would only fail to connect later, or trust its own authorities if a file is empty.
        """
        ca, certificate, key = (_read(path) for path in (self.ca, self.certificate, self.key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError:
                raise ValueError(f"{self.ca} is not a certificate in PEM") from None
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key, password="")  # never ask a terminal for one
            except ssl.SSLError:
                raise ValueError(
                    f"{self.certificate} and {self.key} are not a certificate and its key in PEM, not encrypted"
                ) from None
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def channel_credentials(target: str, tls: Tls | None, *, has_token: bool) -> grpc.ChannelCredentials | None:
    """Return the credentials; None for plain text. Raises as `Tls.credentials`; ValueError for a token without TLS."""
    if tls is not None:
        return tls.credentials()
    if not has_token:
        return None
    if not _LOOPBACK.fullmatch(target):
        raise ValueError(f"a token is sent to {target} over TLS only: without it, anyone on the way can read it")
    # With these, gRPC refuses an answer from another machine, also if a resolver or a proxy has changed the address.
    return grpc.local_channel_credentials()
