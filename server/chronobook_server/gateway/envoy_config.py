"""The gateway's settings as Envoy's configuration, rendered from the template `envoy/envoy.yaml.j2`."""

import ipaddress
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from swagger_ui_bundle import swagger_ui_path

from chronobook_server.config.settings import Address, Endpoint, GatewaySettings, Tls, UnixSocket, is_loopback

LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]"]


def config_folder() -> Path:
    """Return the folder of the template: in the package in an installation, else at the top of the source."""
    here = Path(__file__).resolve().parents[1]
    installed = here / "envoy"
    return installed if installed.is_dir() else here.parent.parent / "envoy"


def envoy_config(settings: GatewaySettings, *, admin: Path) -> str:
    """Return the configuration as YAML; `admin` is the socket for Envoy's administration."""
    folder = config_folder()
    environment = Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"json": _json, "place": _place, "file": _file, "pair": _pair}
    is_local = is_loopback(settings.listen) and not settings.is_protected
    metrics_are_local = settings.metrics is None or is_loopback(settings.metrics)
    return environment.get_template("envoy.yaml.j2").render(
        settings=settings,
        admin=admin,
        folder=folder,
        swagger_ui=swagger_ui_path,
        has_names=any(isinstance(each, Address) for each in settings.upstreams),
        upstream_is_ip=_is_ip(settings.upstream_name),
        domains=LOCAL_NAMES if is_local else ["*"],
        metrics_domains=LOCAL_NAMES if metrics_are_local else ["*"],
    )


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _place(endpoint: Endpoint) -> str:
    if isinstance(endpoint, UnixSocket):
        return _json({"pipe": {"path": endpoint.path}})
    return _json({"socket_address": {"address": endpoint.host, "port_value": endpoint.port}})


def _file(path: Path) -> str:
    # Relative paths are relative to the folder of this process, not to the folder of the configuration.
    return _json({"filename": path.absolute()})


def _pair(tls: Tls) -> str:
    return f'[{{"certificate_chain": {_file(tls.certificate)}, "private_key": {_file(tls.key)}}}]'


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
