"""Names of callers, by which fair shares are counted.

Envoy states the origin of each request in headers, and removes such headers of the callers themselves. The server
believes them only on a connection that proves to be Envoy's. Such a connection has the certificate of the gateway, or
goes through a socket in the file system, whose mode lets in the server's own user and group. On any other connection
the caller is the peer.
"""

import ipaddress
from base64 import urlsafe_b64decode
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import orjson

from chronobook_server.api.shares import Caller

ADDRESS, CERTIFICATE, TOKEN = (f"x-chronobook-caller-{what}" for what in ("address", "certificate", "token"))
_UNIX = "unix:"
_NETWORK_BITS = 64  # of an IPv6 address: one site has at least a /64
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Callers:
    """Names of callers. `gateway_name` is a name in the gateway's certificate; with None, no certificate is the
    gateway's.

    Without TLS no peer has a certificate: `is_tls` = False saves looking for one at each call.
    """

    def __init__(self, gateway_name: str | None = None) -> None:
        self._gateway_name = None if gateway_name is None else gateway_name.encode()
        self.is_tls = True

    def of(self, context: _Context) -> Caller:
        """Return the caller that makes a call."""
        peer = context.peer()
        if peer.startswith(_UNIX):
            return _asserted(context) or Caller(peer)
        if not self.is_tls:
            return _of_peer(peer)
        shown = context.auth_context() or {}
        if self._gateway_name is not None and self._gateway_name in _names(shown):
            return _asserted(context) or _of_peer(peer)
        pem = shown.get("x509_pem_cert")
        return Caller(f"certificate {_digest(b''.join(pem))}") if pem else _of_peer(peer)


def _names(shown: Any) -> list[bytes]:
    return [*shown.get("x509_common_name", ()), *shown.get("x509_subject_alternative_name", ())]


@lru_cache(1024)
def _of_peer(peer: str) -> Caller:
    """Return the caller at a peer as gRPC writes it: `ipv4:HOST:PORT`, or `ipv6:%5BHOST%5D:PORT`."""
    return of_address(unquote(peer.partition(":")[2]))


def _asserted(context: _Context) -> Caller | None:
    """Return the caller on whose behalf Envoy calls; None if Envoy calls on its own."""
    said: dict[str, Any] = {
        key: value for key, value in context.invocation_metadata() or () if key in (ADDRESS, CERTIFICATE, TOKEN)
    }
    subject = subject_of(said.get(TOKEN))
    if subject is not None:
        return Caller(f"subject {_digest(subject.encode('utf-8', 'surrogatepass'))}")
    if said.get(CERTIFICATE):
        return Caller(f"certificate {said[CERTIFICATE]}")
    return of_address(said[ADDRESS]) if said.get(ADDRESS) else None


def subject_of(token: Any) -> str | None:
    """Return the subject of a token, from its payload as Envoy passes it on; None if it names none."""
    if not token:
        return None
    try:
        claims = orjson.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (TypeError, ValueError):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) and subject else None


@lru_cache(1024)
def of_address(address: str) -> Caller:
    """Return the caller at HOST:PORT, named by the host, or by the /64 network of an IPv6 host."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]").partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return Caller(f"address {host[:64]}", address[:64])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if isinstance(ip, ipaddress.IPv6Address):
        return Caller(f"address {ipaddress.ip_network((ip, _NETWORK_BITS), strict=False)}", address)
    return Caller(f"address {ip}", address)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
