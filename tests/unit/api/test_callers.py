"""Names of callers: the peer, or Envoy's headers about it on Envoy's own connection only."""

import json
from base64 import urlsafe_b64encode
from typing import Any, cast

import pytest

from chronobook_server.api.callers import ADDRESS, CERTIFICATE, TOKEN, Callers, of_address, subject_of


def payload(**claims: Any) -> str:
    return urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


class Context:
    """Context of a call, with its connection."""

    def __init__(
        self, peer: str, said: dict[str, str] | None = None, shown: dict[str, list[bytes]] | None = None
    ) -> None:
        self._peer, self._said, self._shown = peer, said or {}, shown or {}

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._shown

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._said.items())


def caller(context: Context, gateway_name: str | None = None) -> str:
    return Callers(gateway_name).of(cast(Any, context)).name


SAID = {ADDRESS: "9.9.9.9:1", TOKEN: payload(sub="somebody")}
CERTIFICATES: dict[str, list[bytes]] = {"x509_common_name": [b"gateway"], "x509_pem_cert": [b"PEM"]}


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000", "ipv4:10.0.0.7:5000"])
@pytest.mark.parametrize("gateway_name", [None, "gateway"])
def test_what_a_peer_says_of_itself_is_not_believed(peer: str, gateway_name: str | None) -> None:
    assert caller(Context(peer, SAID), gateway_name) == caller(Context(peer), gateway_name)


def test_a_certificate_is_a_caller_and_the_gateways_is_trusted() -> None:
    other = {**CERTIFICATES, "x509_common_name": [b"somebody"]}
    peer = "ipv4:10.0.0.7:5000"
    plain = caller(Context(peer, {}, CERTIFICATES))
    assert plain.startswith("certificate ")
    assert plain == caller(Context("ipv4:10.0.0.8:1", SAID, CERTIFICATES)), "wherever it calls from"
    assert caller(Context(peer, SAID, other), "gateway") == plain, "not the gateway's"
    assert caller(Context(peer, SAID, CERTIFICATES), "gateway").startswith("subject ")
    alternative = {"x509_subject_alternative_name": [b"gateway"], "x509_pem_cert": [b"PEM"]}
    assert caller(Context(peer, SAID, alternative), "gateway").startswith("subject ")


def test_on_a_socket_envoy_is_believed_from_token_to_address() -> None:
    def of(**said: str) -> str:
        names = {"address": ADDRESS, "certificate": CERTIFICATE, "token": TOKEN}
        return caller(Context("unix:", {names[name]: value for name, value in said.items()}))

    everything = of(address="9.9.9.9:1", certificate="ab12", token=payload(sub="a"))
    assert everything == of(token=payload(sub="a", exp=5)) != of(token=payload(sub="b"))
    assert of(address="9.9.9.9:1", certificate="ab12") == "certificate ab12"
    assert of(address="9.9.9.9:1") == of(address="9.9.9.9:2") == "address 9.9.9.9"
    assert of(address="9.9.9.9:1", token=payload(aud="x")) == "address 9.9.9.9"
    assert of() == "unix:", "Envoy itself, as it asks for health"


@pytest.mark.parametrize("token", [None, "", "!", "e30", "W10", payload(sub=5), payload(sub=""), "é", payload()[:-1]])
def test_a_token_that_names_nobody_names_nobody(token: str | None) -> None:
    assert subject_of(token) is None


@pytest.mark.parametrize("subject", ["a", "müller", "a\nb", "a\x00b", "x" * 5000, "日本", "\ud800"])
def test_any_subject_makes_a_short_name(subject: str) -> None:
    name = caller(Context("unix:", {TOKEN: payload(sub=subject)}))
    assert len(name) < 100
    assert name.isprintable()


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.7:1", "10.0.0.7:2", True),
        ("10.0.0.7:1", "10.0.0.8:1", False),
        ("[2001:db8::1]:1", "[2001:db8::2]:2", True),
        ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", False),
        ("[::ffff:10.0.0.7]:1", "10.0.0.7:2", True),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]:2", True),
        ("127.0.0.1:1", "127.0.0.1:2", True),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("[::1]:1", "[::1]:2", True),
        ("elsewhere", "elsewhere", True),
    ],
)
def test_an_address_is_a_host_or_its_network(one: str, other: str, *, is_same: bool) -> None:
    assert (of_address(one).name == of_address(other).name) is is_same
    assert (of_address(one).connection == of_address(other).connection) is (one == other)


def test_the_headers_are_those_that_envoy_takes_from_callers() -> None:
    assert all(name.startswith("x-chronobook-") for name in (ADDRESS, CERTIFICATE, TOKEN))
