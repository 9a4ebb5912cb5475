"""The gateway's settings in Envoy's configuration."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chronobook_server.config.settings import Address, GatewaySettings, Tls, Tokens, UnixSocket
from chronobook_server.gateway.envoy_config import LOCAL_NAMES
from testkit.harness.running_gateway import read_config

ADMIN = Path("/somewhere/admin.sock")
LOCAL = GatewaySettings(Address("127.0.0.1", 1234), (Address("somewhere", 5678),))
EDGE = replace(LOCAL, listen=Address("192.0.2.1", 443))
TLS = Tls(Path("/c.pem"), Path("/k.pem"))
FULL = replace(
    EDGE,
    tls=replace(TLS, authority=Path("/ca.pem")),
    tokens=Tokens(Path("/jwks.json"), "issuer", "audience"),
    upstream_tls=replace(TLS, authority=Path("/ca.pem")),
    upstream_name="server.example",
)


def made(settings: GatewaySettings) -> dict[str, Any]:
    return read_config(settings, admin=ADMIN)


def changes(before: Any, after: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the differences by their places."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = {*before, *after}
        found = [changes(before.get(key), after.get(key), f"{place}.{key}") for key in keys]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        found = [changes(*pair, f"{place}[{number}]") for number, pair in enumerate(zip(before, after, strict=True))]
    else:
        return {} if before == after else {place: (before, after)}
    return {each: difference for one in found for each, difference in one.items()}


def test_of_the_local_variant_only_addresses_are_set() -> None:
    settings = replace(LOCAL, metrics=Address("127.0.0.1", 99))
    other = GatewaySettings(Address("127.0.0.1", 1), (Address("elsewhere", 2),), metrics=Address("127.0.0.1", 3))
    differences = changes(read_config(other, admin=Path("/admin")), made(settings))
    assert {after for _, after in differences.values()} == {1234, "somewhere", 5678, str(ADMIN), 99}
    assert len(made(settings)["static_resources"]["listeners"]) == 2
    assert len(made(LOCAL)["static_resources"]["listeners"]) == 1


def test_what_faces_a_network_is_the_edge() -> None:
    assert not LOCAL.is_edge
    assert "overload_manager" not in made(LOCAL)
    tokens = Tokens(Path("/jwks.json"), "issuer", "audience")
    asked = ({"tls": TLS}, {"tokens": tokens}, {"upstream_tls": replace(TLS, authority=Path("/ca.pem"))})
    for settings in (EDGE, *(replace(LOCAL, **each) for each in asked)):
        assert settings.is_edge
        assert "overload_manager" in made(settings)


def test_only_tls_with_authentication_protects() -> None:
    tokens = Tokens(Path("/jwks.json"), "issuer", "audience")
    unprotected = [EDGE, replace(EDGE, tls=TLS), replace(EDGE, tokens=tokens)]
    assert not any(each.is_protected for each in unprotected)
    assert replace(EDGE, tls=TLS, tokens=tokens).is_protected
    assert replace(EDGE, tls=replace(TLS, authority=Path("/ca.pem"))).is_protected


def test_what_is_not_given_leaves_nothing_behind() -> None:
    full, text = json.dumps(made(FULL)), json.dumps(made(EDGE))
    for name in (
        "DownstreamTlsContext",
        "UpstreamTlsContext",
        "require_client_certificate",
        "tls_certificates",
        "validation_context",
        "JwtAuthentication",
        "transport_socket",
    ):
        assert name in full
        assert name not in text
    without_authority = json.dumps(made(replace(FULL, tls=TLS, upstream_tls=None, upstream_name="")))
    assert "tls_certificates" in without_authority
    assert "require_client_certificate" not in without_authority
    assert "validation_context" not in without_authority


@pytest.mark.parametrize("odd", ['/it\'s a "key": {{x}}, #1', "/ü\N{GRINNING FACE}\\n<&>", "/a: [b]\n- c"])
def test_no_text_of_a_setting_is_read_as_more_than_a_text(odd: str) -> None:
    plain = replace(FULL, upstreams=(UnixSocket(Path("/x")),))
    settings = replace(
        plain,
        upstreams=(UnixSocket(Path(odd)),),
        tls=Tls(Path(odd), Path(odd), Path(odd)),
        tokens=Tokens(Path(odd), odd, odd),
        upstream_name=odd,
    )
    differences = changes(made(plain), made(settings))
    assert {after for _, after in differences.values()} == {odd}
    assert len(differences) == 9


def test_all_that_is_given_is_in_it_by_absolute_paths() -> None:
    settings = GatewaySettings(
        Address("192.0.2.1", 443),
        (Address("10.0.0.1", 1), Address("10.0.0.2", 2)),
        tls=Tls(Path("c.pem"), Path("k.pem"), Path("ca.pem")),
        tokens=Tokens(Path("keys.json"), "who", "whom"),
        upstream_tls=Tls(Path("uc.pem"), Path("uk.pem"), Path("uca.pem")),
        upstream_name="server.example",
        rate_limit=7,
    )
    config = made(settings)
    text = json.dumps(config)
    for file in ("c.pem", "k.pem", "ca.pem", "keys.json", "uca.pem", "uc.pem", "uk.pem"):
        assert f'"filename": "{Path(file).absolute()}"' in text
    assert '"issuer": "who", "audiences": ["whom"]' in text
    assert '"max_tokens": 14, "tokens_per_fill": 7' in text
    cluster = config["static_resources"]["clusters"][0]
    assert cluster["transport_socket"]["typed_config"]["sni"] == "server.example"
    assert len(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2


def test_a_server_known_by_its_address_is_compared_by_it() -> None:
    settings = replace(EDGE, upstream_tls=replace(TLS, authority=Path("/ca.pem")), upstream_name="10.0.0.1")
    context = made(settings)["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]
    (name,) = context["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert name == {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.1"}}
    assert "sni" not in context


def test_sockets_are_not_resolved() -> None:
    cluster = made(replace(LOCAL, upstreams=(UnixSocket(Path("/a")), UnixSocket(Path("/b")))))["static_resources"][
        "clusters"
    ][0]
    assert cluster["type"] == "STATIC"
    places = [each["endpoint"]["address"] for each in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]
    assert places == [{"pipe": {"path": "/a"}}, {"pipe": {"path": "/b"}}]


def domains(settings: GatewaySettings, listener: int = 0) -> list[str]:
    manager = made(settings)["static_resources"]["listeners"][listener]["filter_chains"][0]["filters"][0][
        "typed_config"
    ]
    found: list[str] = manager["route_config"]["virtual_hosts"][0]["domains"]
    return found


def test_without_callers_proof_only_local_names_are_answered() -> None:
    loopback = replace(LOCAL, tls=TLS)
    assert domains(LOCAL) == domains(loopback) == LOCAL_NAMES
    assert domains(replace(loopback, tls=replace(TLS, authority=Path("/ca.pem")))) == ["*"]
    assert domains(EDGE) == ["*"], "--insecure was said"
    assert domains(replace(LOCAL, metrics=Address("127.0.0.1", 1)), 1) == LOCAL_NAMES
    assert domains(replace(LOCAL, metrics=Address("192.0.2.1", 1)), 1) == ["*"]
