"""The edge around a test: TLS, tokens, and everything that goes wrong with them."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from chronobook_server.config.settings import Address, Endpoint, GatewaySettings, Tls, Tokens
from chronobook_server.gateway.process import gateway
from testkit.harness.certificates import LOOPBACK, Authority, make_authority
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port

ISSUER, AUDIENCE = "https://issuer.example", "chronobook"


class Issuer:
    """Issuer of tokens; `write` writes its keys for the edge."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def write(self, path: Path) -> Path:
        jwk = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
        path.write_text(json.dumps({"keys": [{**jwk, "alg": "ES256", "use": "sig", "kid": "1"}]}))
        return path

    def token(self, **claims: Any) -> str:
        """Return a good token with these claims changed; None leaves a claim out."""
        now = int(time.time())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 3600, **claims}
        kept = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(kept, self._key, algorithm="ES256", headers={"kid": "1"})


@dataclass
class Edge:
    """A running edge, and how to get past it."""

    settings: GatewaySettings
    authority: Authority
    issuer: Issuer

    @property
    def base(self) -> str:
        return f"{'http' if self.settings.tls is None else 'https'}://localhost:{self.settings.listen.port}"

    @cached_property
    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.ca))

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.issuer.token()}"}

    def channel(self) -> grpc.aio.Channel:
        """Return a channel that trusts the edge; calls bring their tokens themselves."""
        credentials = grpc.ssl_channel_credentials(self.authority.ca.read_bytes())
        return grpc.aio.secure_channel(f"localhost:{self.settings.listen.port}", credentials)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that has TLS and speaks HTTP/1."""
        return await asyncio.open_connection("localhost", self.settings.listen.port, ssl=self.trusting)


def edge_settings(
    folder: Path, upstreams: Sequence[Endpoint], **changes: Any
) -> tuple[GatewaySettings, Authority, Issuer]:
    """Return settings of an edge with TLS, tokens and an unreachable rate limit; with its authority and issuer."""
    authority, issuer = make_authority(folder), Issuer()
    settings = GatewaySettings(
        Address("127.0.0.1", free_port()),
        tuple(upstreams),
        tls=Tls(*authority.issue("edge", hosts=LOOPBACK)),
        tokens=Tokens(issuer.write(folder / "jwks.json"), ISSUER, AUDIENCE),
        rate_limit=1_000_000,
    )
    return replace(settings, **changes), authority, issuer


@contextlib.asynccontextmanager
async def running_edge(folder: Path, upstreams: Sequence[Endpoint], **changes: Any) -> AsyncIterator[Edge]:
    """Run an edge around a block, through which the servers can be reached when it begins."""
    edge = Edge(*edge_settings(folder, upstreams, **changes))
    async with gateway(edge.settings):
        async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
            while True:
                async with http.get(f"{edge.base}/readyz", ssl=edge.trusting, headers=edge.bearer) as reply:
                    if reply.status == 200:
                        break
                await asyncio.sleep(0.02)  # Envoy finds the server without an event for the test
        yield edge
