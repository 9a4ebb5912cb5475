"""Envoy's configuration for the gateway's settings: one of the variants in `envoy/` with these settings inserted."""

import ipaddress
from pathlib import Path
from typing import Any

import yaml

from chronobook_server.settings import Address, Endpoint, GatewaySettings, Tls, Tokens, UnixSocket, is_loopback

Config = dict[str, Any]
LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]"]


def config_folder() -> Path:
    """Return the folder of both variants: beside this module if installed, otherwise at the top of the source."""
    here = Path(__file__).resolve().parent
    installed = here / "envoy"
    return installed if installed.is_dir() else here.parent.parent / "envoy"


def envoy_config(settings: GatewaySettings, *, admin: Path) -> Config:
    """Return the configuration; `admin` is the socket for Envoy's administration."""
    name = "edge.yaml" if settings.is_edge else "envoy.yaml"
    config: Config = yaml.safe_load((config_folder() / name).read_text(encoding="utf-8"))
    resources = config["static_resources"]
    server, admin_cluster = resources["clusters"]
    edge, metrics = resources["listeners"]
    edge["address"] = _place(settings.listen)
    server["load_assignment"]["endpoints"][0]["lb_endpoints"] = [_endpoint(each) for each in settings.upstreams]
    if not any(isinstance(each, Address) for each in settings.upstreams):
        server["type"] = "STATIC"  # there is no name to resolve
    config["admin"]["address"]["pipe"]["path"] = str(admin)
    admin_cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [_endpoint(UnixSocket(admin))]
    if settings.metrics is None:
        resources["listeners"].remove(metrics)
    else:
        metrics["address"] = _place(settings.metrics)
        if not is_loopback(settings.metrics):
            _manager(metrics)["route_config"]["virtual_hosts"][0]["domains"] = ["*"]
    if settings.is_edge:
        if is_loopback(settings.listen) and not settings.is_protected:
            _manager(edge)["route_config"]["virtual_hosts"][0]["domains"] = LOCAL_NAMES
        _set_tls(edge["filter_chains"][0], settings.tls)
        _set_upstream_tls(server, settings.upstream_tls, settings.upstream_name)
        _set_filters(_manager(edge)["http_filters"], settings)
    return config


def _manager(listener: Config) -> Config:
    """Return the configuration of a listener's connection manager."""
    manager: Config = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _place(endpoint: Endpoint) -> Config:
    if isinstance(endpoint, UnixSocket):
        return {"pipe": {"path": str(endpoint.path)}}
    return {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}


def _endpoint(endpoint: Endpoint) -> Config:
    return {"endpoint": {"address": _place(endpoint)}}


def _files(certificate: Path, key: Path) -> list[Config]:
    return [{"certificate_chain": _file(certificate), "private_key": _file(key)}]


def _file(path: Path) -> Config:
    # Envoy runs in the folder of the configuration.
    return {"filename": str(path.absolute())}


def _set_tls(chain: Config, tls: Tls | None) -> None:
    if tls is None:
        del chain["transport_socket"], chain["transport_socket_connect_timeout"]
        return
    context = chain["transport_socket"]["typed_config"]
    common = context["common_tls_context"]
    common["tls_certificates"] = _files(tls.certificate, tls.key)
    if tls.authority is None:
        del context["require_client_certificate"], common["validation_context"]
    else:
        common["validation_context"]["trusted_ca"] = _file(tls.authority)


def _set_upstream_tls(cluster: Config, tls: Tls | None, name: str) -> None:
    if tls is None:
        del cluster["transport_socket"]
        return
    context = cluster["transport_socket"]["typed_config"]
    common = context["common_tls_context"]
    common["tls_certificates"] = _files(tls.certificate, tls.key)
    (named,) = common["validation_context"]["match_typed_subject_alt_names"]
    named["matcher"]["exact"] = context["sni"] = name
    if _is_ip(name):
        named["san_type"] = "IP_ADDRESS"
        del context["sni"]  # SNI names hosts, never addresses
    assert tls.authority is not None, "TLS to a server needs the authority that proves the server"
    common["validation_context"]["trusted_ca"] = _file(tls.authority)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _set_filters(filters: list[Config], settings: GatewaySettings) -> None:
    by_name = {each["name"].rpartition(".")[2]: each for each in filters}
    (limit,) = by_name["local_ratelimit"]["typed_config"]["descriptors"]
    limit["token_bucket"] |= {"max_tokens": 2 * settings.rate_limit, "tokens_per_fill": settings.rate_limit}
    if settings.tokens is None:
        filters.remove(by_name["jwt_authn"])
    else:
        _set_tokens(by_name["jwt_authn"]["typed_config"]["providers"]["edge"], settings.tokens)


def _set_tokens(provider: Config, tokens: Tokens) -> None:
    provider |= {"issuer": tokens.issuer, "audiences": [tokens.audience], "local_jwks": _file(tokens.keys)}
