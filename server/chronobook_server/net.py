"""Addresses to listen on, looked at before anything is started there."""

import socket

from chronobook_server.settings import Address


class AddressTaken(OSError):
    """An address that cannot be listened on; the text is one line that says why."""


def resolve_free(address: Address) -> Address:
    """Return an address to listen on with its name resolved. Raises AddressTaken where it cannot be had."""
    try:
        family, _, _, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found)
            probe.listen(1)
    except OSError as error:
        raise AddressTaken(f"cannot listen on {address}: {error.strerror}") from error
    return Address(str(found[0]), address.port)
