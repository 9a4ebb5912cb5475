"""Guards of a server on a shared network: TLS with a client certificate, and a check of a token."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from chronobook import Tls
from testkit.fakes.contract_server import Fake, serving
from testkit.harness.certificates import LOOPBACK, Authority, make_authority

_Next = Any  # gRPC's continuation has no type


class Guard(grpc.aio.ServerInterceptor):
    """Accepts calls with one of `tokens`, refuses others as an edge does, and records the metadata of each call.

    `renamed` is the request id in refusals, if it has to differ from the one sent.
    """

    def __init__(self) -> None:
        self.tokens = {"valid"}
        self.renamed = ""
        self.seen: list[dict[str, str]] = []
        self.afterwards: Callable[[], None] = lambda: None  # called once it is decided about a call

    async def intercept_service(self, continuation: _Next, details: grpc.HandlerCallDetails) -> Any:
        sent = {key: str(value) for key, value in details.invocation_metadata or ()}
        self.seen.append(sent)
        is_let_in = sent.get("authorization", "").removeprefix("Bearer ") in self.tokens
        self.afterwards()
        if is_let_in:
            return await continuation(details)
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    async def _refuse(self, _: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        answer = (("x-request-id", self.renamed),) if self.renamed else ()
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Jwt is missing", answer)

    @property
    def ids(self) -> list[str]:
        """The request ids of the calls so far."""
        return [sent["x-request-id"] for sent in self.seen]


@dataclass(frozen=True)
class Guarded:
    """A Fake behind TLS and a guard; `tls` is for an accepted client."""

    fake: Fake
    guard: Guard
    authority: Authority
    tls: Tls


def client_tls(authority: Authority) -> Tls:
    """Return the TLS files of a client with a certificate of the authority."""
    certificate, key = authority.issue("reader")
    return Tls(authority.ca, certificate, key)


@contextlib.contextmanager
def guarding(folder: Path) -> Iterator[Guarded]:
    """Run an edge around a block, with its files in a folder."""
    authority, guard = make_authority(folder), Guard()
    certificate, key = authority.issue("server", hosts=LOOPBACK)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=authority.ca.read_bytes(),
        require_client_auth=True,
    )
    with serving(credentials, [guard]) as fake:
        yield Guarded(fake, guard, authority, client_tls(authority))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
    with contextlib.closing(sink), contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            await asyncio.sleep(delay)
            sink.write(data)


@contextlib.asynccontextmanager
async def relay(address: str, *, context: ssl.SSLContext | None = None, delay: float = 0.0) -> AsyncIterator[str]:
    """Pass everything on to an address around a block, `delay` seconds later, out of TLS if there is a context.

    Gives the address to connect to.
    """
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = address.rpartition(":")
        back, on = await asyncio.open_connection(host, int(port))
        running.update(asyncio.create_task(_pump(*each, delay)) for each in ((reader, on), (back, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
