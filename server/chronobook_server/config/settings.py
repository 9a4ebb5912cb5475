"""Command settings, and parsers of their option values. Errors are ValueErrors with one clear sentence."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from chronobook_server.domain.symbol_names import one_line, valid_symbol

LIVE_REST_URL = "https://fapi.binance.com"
LIVE_STREAM_URL = "wss://fstream.binance.com/public"
_UNIX = "unix:"
# Bytes of the path of a unix socket that the kernel takes (`sun_path`).
_LONGEST_PATH = 107

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(MB|GB|TB)")
_UNIT_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Address(NamedTuple):
    """A host and a port to listen on or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixSocket(NamedTuple):
    """A socket in the file system, to listen on or to connect to."""

    path: Path

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


Endpoint: TypeAlias = Address | UnixSocket


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the own certificate and key, and the authority of the peer's certificate; None: any peer."""

    certificate: Path
    key: Path
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Accepted tokens: signed with one of these keys (a JWKS file), by this issuer, for this audience."""

    keys: Path
    issuer: str
    audience: str


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of `gateway`.

    `tls` is for callers. With `upstream_tls` the gateway calls servers over TLS, and their certificates bear
    `upstream_name`. `rate_limit` is in requests a second of one address, with twice as many in a burst. `workers` is
    the number of Envoy's threads.
    """

    listen: Address
    upstreams: tuple[Endpoint, ...]
    tls: Tls | None = None
    tokens: Tokens | None = None
    upstream_tls: Tls | None = None
    upstream_name: str = ""
    rate_limit: int = 100
    workers: int = 2
    metrics: Address | None = None

    @property
    def is_edge(self) -> bool:
        """Whether the gateway faces a network, or has a setting of the edge."""
        asked = (self.tls, self.tokens, self.upstream_tls)
        return not is_loopback(self.listen) or any(each is not None for each in asked)

    @property
    def is_protected(self) -> bool:
        """Whether traffic is encrypted and every caller is authenticated."""
        return self.tls is not None and (self.tls.authority is not None or self.tokens is not None)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of `serve`. The first symbol is the default of every question.

    `gateway_name` is a name in the gateway's certificate; None: the gateway is trusted only on a unix socket. With
    `all_symbols`, every traded contract is served, the named ones first. An interval of None means never.
    """

    symbols: tuple[str, ...]
    rest_url: str
    stream_url: str
    update_speed: str
    listen: Endpoint
    data_dir: Path
    retention_ms: int
    retention_bytes: int | None = None
    sync_interval_ms: int = 1000
    all_symbols: bool = False
    connections: int = 1
    audit_interval_ms: int | None = None
    metrics: Address | None = None
    tls: Tls | None = None
    drain_ms: int = 0
    log_calls: bool = False
    gateway_name: str | None = None

    @property
    def is_protected(self) -> bool:
        """Whether traffic is encrypted and every caller is authenticated."""
        return self.tls is not None and self.tls.authority is not None


def parse_endpoint(text: str) -> Endpoint:
    """Read `HOST:PORT`, `[HOST]:PORT` or `unix:/PATH`."""
    if not text.startswith(_UNIX):
        return parse_address(text)
    path = text.removeprefix(_UNIX)
    if not path.startswith("/") or len(path.encode()) > _LONGEST_PATH:
        raise ValueError(f"{text!r} is not unix: and an absolute path of {_LONGEST_PATH} bytes at most")
    return UnixSocket(Path(path))


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Read a comma-separated list of endpoints."""
    return tuple(parse_endpoint(part.strip()) for part in text.split(","))


def parse_address(text: str) -> Address:
    """Read `HOST:PORT` or `[HOST]:PORT`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Address(host, int(port))


ALL_SYMBOLS = "ALL"
DEFAULT_SYMBOL = "ETHUSDT"


def parse_symbols(text: str) -> tuple[str, ...]:
    """Read a comma-separated list of symbols, in any case, each once. `ALL` may be among them."""
    symbols = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    if not symbols:
        raise ValueError("name at least one symbol")
    for symbol in symbols:
        if not valid_symbol(symbol):
            raise ValueError(f"{one_line(symbol)!r} cannot be a symbol: letters, digits and _, 64 at most")
    return symbols


def parse_interval(text: str) -> int | None:
    """Read a duration as ms, or `never` as None."""
    return None if text.strip() == "never" else parse_duration(text)


def parse_duration(text: str) -> int:
    """Read a duration such as `24h`, `90m` or `30s` as ms."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration such as 24h, 90m or 30s")
    return round(float(match[1]) * _UNIT_MS[match[2]])


def parse_size(text: str) -> int:
    """Read a number of bytes such as `500MB`, `20GB` or `1TB` (powers of 1000)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a size such as 500MB or 20GB")
    return round(float(match[1]) * _UNIT_BYTES[match[2]])


def parse_url(text: str, *schemes: str) -> str:
    """Read a URL of one of these schemes; a slash at its end is dropped."""
    if not any(text.startswith(f"{scheme}://") for scheme in schemes):
        raise ValueError(f"{text!r} does not start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return text.rstrip("/")


def is_loopback(address: Endpoint) -> bool:
    """Return whether an address is reachable only from this machine."""
    if isinstance(address, UnixSocket) or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False  # a name, which may resolve to any address
