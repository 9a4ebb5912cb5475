"""Checks of addresses to listen on and of TLS files, before a server starts."""

import socket
import ssl

from chronobook_server.config.settings import Address, Endpoint, Tls, UnixSocket


class AddressTaken(OSError):
    """An address that cannot be listened on; the text gives the reason in one line."""


class TlsFilesError(OSError):
    """Unusable TLS files; the text gives the reason in one line."""


def validate_tls_files(tls: Tls) -> None:
    """Load certificate, key and authority as a server does. Raises TlsFilesError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise TlsFilesError(f"cannot use {tls.certificate} with {tls.key}: {error.args[-1]}") from error
    if tls.authority is not None:
        try:
            context.load_verify_locations(tls.authority)
        except OSError as error:
            raise TlsFilesError(f"cannot use {tls.authority}: {error.args[-1]}") from error


def resolve_free(address: Address) -> Address:
    """Return an address to listen on with its name resolved. Raises AddressTaken if it cannot be had."""
    try:
        family, _, _, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found)
            probe.listen(1)
    except OSError as error:
        raise AddressTaken(f"cannot listen on {address}: {error.strerror}") from error
    return Address(str(found[0]), address.port)


def free_endpoint(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint to listen on; a socket that a killed process left behind is removed. Raises AddressTaken."""
    if isinstance(endpoint, Address):
        return resolve_free(endpoint)
    try:
        _remove_abandoned(endpoint)
    except OSError as error:
        raise AddressTaken(f"cannot listen on {endpoint}: {error.strerror}") from error
    return endpoint


def _remove_abandoned(unix: UnixSocket) -> None:
    if not unix.path.exists():
        # Binding shows now whether the socket can be made.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(str(unix.path))
    elif not unix.path.is_socket():
        raise OSError(0, "there is a file of that name")
    elif _is_listening(unix):
        raise OSError(0, "another process listens there")
    unix.path.unlink()


def _is_listening(unix: UnixSocket) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(unix.path))
        except ConnectionRefusedError:
            return False
    return True
