"""Credentials of a client: unusable files, and the allowed targets of a token."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from chronobook import AsyncClient, ChronobookError, Client, Tls, _tls
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake
from testkit.harness.certificates import make_authority
from tests.integration.client.conftest import Made

LOOPBACK_TARGETS = [
    "localhost", "LOCALHOST:50051", "127.0.0.1:50051", "127.8.9.10", "[::1]:50051", "dns:localhost:50051",
    "dns:///localhost:50051", "ipv4:127.0.0.1:50051", "ipv6:[::1]:50051",
]  # fmt: skip
OTHER_TARGETS = [
    "books.example.com:443", "localhost.example.com:443", "10.0.0.1:50051", "0.0.0.0:50051", "[::]:50051", "::1:50051",
    "127.0.0.1.example.com", "dns://10.0.0.1/localhost:50051", "ipv4:127.0.0.1:50051,10.0.0.1:50051", "localhost:443/x",
]  # fmt: skip


async def test_a_token_goes_in_the_open_to_this_machine_only(fake: Fake, made: Made) -> None:
    fake.answer = pb.GetStatusResponse(symbol="ETHUSDT")
    assert (await made(fake.target, token="valid").status()).symbol == "ETHUSDT"
    assert (await made(f"dns:{fake.target}", token=lambda: "valid").status()).symbol == "ETHUSDT"
    for target in LOOPBACK_TARGETS:
        made(target, token="valid")
    for target in OTHER_TARGETS:
        with pytest.raises(ValueError, match="over TLS only") as caught:
            made(target, token="valid")
        assert "\n" not in str(caught.value)
        made(target)
        made(target, token="valid", tls=Tls())


async def test_grpc_keeps_a_token_without_tls_on_loopback(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of this machine may later resolve elsewhere; here it resolves to a non-loopback address."""
    monkeypatch.setattr(_tls, "_LOOPBACK", re.compile(".*"))
    came: dict[str, bytes] = {}

    def listens(name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                came[name] = came.get(name, b"") + await reader.read(1 << 16)

        return take

    for name, token in (("with", "secret"), ("without", None)):
        async with await asyncio.start_unix_server(listens(name), tmp_path / name):
            with pytest.raises(ChronobookError):
                await made(f"unix:{tmp_path / name}", token=token, timeout=0.5).status()
    assert came.get("with", b"") == b""
    assert came["without"].startswith(b"PRI * HTTP/2.0")


def test_files_that_are_no_use_are_told_of_at_once(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    (certificate, key), (_, other) = authority.issue("reader"), authority.issue("other")
    empty, text, encrypted = tmp_path / "empty", tmp_path / "text", tmp_path / "encrypted.key"
    empty.touch()
    text.write_text("no certificate")
    private = load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    for ca in (empty, text, key):
        with pytest.raises(ValueError, match=f"{ca.name} is not a certificate in PEM"):
            Client(tls=Tls(ca))
    for pair in ((certificate, other), (certificate, text), (empty, key), (certificate, encrypted)):
        with pytest.raises(ValueError, match=f"{pair[0].name} and .*{pair[1].name} are not a certificate and its key"):
            AsyncClient(tls=Tls(authority.ca, *pair))
    for missing in (Tls("missing.pem"), Tls(None, certificate, "missing.pem"), Tls(None, "missing.pem", key)):
        with pytest.raises(FileNotFoundError, match=r"missing\.pem"):
            Client(tls=missing)
    for half in ({"certificate": certificate}, {"key": key}):
        with pytest.raises(ValueError, match="a certificate needs its key"):
            Tls(authority.ca, **half)
