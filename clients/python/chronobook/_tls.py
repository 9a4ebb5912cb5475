"""How a client reaches a server across a network: over TLS, and with a token only there."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

_LOOPBACK = re.compile(r"(?:dns:(?:///)?|ipv[46]:)?(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM, read once, when a client is made. Raises ValueError for a certificate without its key.

    ca           whom to trust; None for the authorities that gRPC knows, or GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names
    certificate  what the client shows where it is asked for one, with all between it and the authority
    key          the certificate's private key, not encrypted
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate needs its key, and a key its certificate")

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what gRPC wants. Raises OSError for a file that cannot be read, ValueError for one that is no use.

        gRPC itself would only say later that it cannot connect, or trust those that it knows where a file is empty.
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
    """Return how to connect; None for in the open. Raises as `Tls.credentials`; ValueError for a token in the open."""
    if tls is not None:
        return tls.credentials()
    if not has_token:
        return None
    if not _LOOPBACK.fullmatch(target):
        raise ValueError(f"a token is sent to {target} over TLS only: without it, anyone on the way can read it")
    # With these, gRPC refuses whoever answers from elsewhere, whatever a resolver or a proxy has made of the name.
    return grpc.local_channel_credentials()
