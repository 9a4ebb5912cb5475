"""Command `chronobook-server`. Each option can also be set by an environment variable, CHRONOBOOK_<OPTION>."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import click

from chronobook_server.commands.demo import run_demo
from chronobook_server.config import settings
from chronobook_server.domain.symbol_names import one_line
from chronobook_server.gateway.envoy_config import envoy_config
from chronobook_server.gateway.process import GatewayFailed, run_gateway
from chronobook_server.recording.capture import record
from chronobook_server.recording.capture_file import CaptureFile, Limits
from chronobook_server.runtime import app
from chronobook_server.simulator import BadRecording, Faults, run_simulator
from chronobook_server.venue.binance_futures.frames import UPDATE_SPEEDS
from chronobook_server.venue.feed import SymbolNotListed
from chronobook_server.venue.transport import RealNetwork

_Value = TypeVar("_Value")
_Command = Callable[..., None]
_LONGEST_ERROR = 2000  # characters, as in the log (`app`)
DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_GATEWAY = "127.0.0.1:8000"


class Parsed(click.ParamType[Any]):
    """Option with a parser function; the user sees the text of its ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the text; a default of another type passes through."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


ADDRESS = Parsed("host:port", settings.parse_address)
ENDPOINT = Parsed("host:port|unix:/path", settings.parse_endpoint)
ENDPOINTS = Parsed("host:port|unix:/path,...", settings.parse_endpoints)
FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
SYMBOLS = Parsed("symbols", settings.parse_symbols)
DURATION = Parsed("duration", settings.parse_duration)
INTERVAL = Parsed("interval", settings.parse_interval)
SIZE = Parsed("size", settings.parse_size)
REST_URL = Parsed("url", lambda text: settings.parse_url(text, "http", "https"))
STREAM_URL = Parsed("url", lambda text: settings.parse_url(text, "ws", "wss"))


def option(name: str, *names: str, prefix: str = "CHRONOBOOK", **attributes: Any) -> Callable[[_Command], _Command]:
    """Declare an option with its environment variable, and its default in the help."""
    variable = f"{prefix}_" + name.removeprefix("--").upper().replace("-", "_")
    return click.option(name, *names, envvar=variable, show_default=True, **attributes)


def options(*decorators: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Join several options into one decorator, shown in this order."""

    def decorate(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


exchange_options = options(
    option("--rest-url", type=REST_URL, default=settings.LIVE_REST_URL, help="The base before /fapi/v1."),
    option("--stream-url", type=STREAM_URL, default=settings.LIVE_STREAM_URL, help="The base before /stream."),
    option("--update-speed", type=click.Choice(UPDATE_SPEEDS), default="100ms", help="Interval of depth events."),
)
serve_options = options(
    option(
        "--symbols",
        type=SYMBOLS,
        default="ETHUSDT",
        help="Symbols to keep; the first one is the default. ALL: every contract that is traded, the others first.",
    ),
    exchange_options,
    option("--listen", type=ENDPOINT, default=DEFAULT_LISTEN, help="Address to serve gRPC on."),
    option(
        "--data-dir",
        type=click.Path(path_type=Path),
        default=Path("data"),
        help="Directory of the history; no other server may use it.",
    ),
    option("--retention", "retention_ms", type=DURATION, default="24h", help="Age up to which history is kept."),
    option(
        "--retention-bytes",
        type=SIZE,
        default=None,
        help="Most bytes of history to keep, of all symbols together (500MB, 20GB); no bound by default.",
    ),
    option(
        "--sync-interval",
        "sync_interval_ms",
        type=DURATION,
        default="1s",
        help="Interval at which written history is synced to the disk; a loss of power can cost that much.",
    ),
    option(
        "--connections",
        type=click.IntRange(1, 2),
        default=1,
        help="Connections that bring each stream; with 2, each fills the gaps of the other.",
    ),
    option(
        "--audit-interval",
        "audit_interval_ms",
        type=INTERVAL,
        default="30m",
        help="Longest time between two comparisons of a book with the exchange's own, or never.",
    ),
)
# The gateway's options have their own environment variables, because CHRONOBOOK_LISTEN is the server's address.
gateway_option = partial(option, prefix="CHRONOBOOK_GATEWAY")


def open_options(option: Callable[..., Callable[[_Command], _Command]]) -> Callable[[_Command], _Command]:
    """Declare the options of a server or a gateway that faces a network."""
    return options(
        option("--tls-certificate", type=FILE, default=None, help="PEM file of the certificate to show; turns TLS on."),
        option("--tls-key", type=FILE, default=None, help="PEM file of its key."),
        option("--client-ca", type=FILE, default=None, help="PEM file: only clients with a certificate of this CA."),
        option("--metrics", type=ADDRESS, default=None, help="Address of metrics for Prometheus; none by default."),
        option("--insecure", is_flag=True, help="Listen beyond this machine without authenticating callers."),
    )


class BadSetting(click.ClickException):
    """Settings that contradict each other; exit code 1."""


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> settings.Tls | None:
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise BadSetting("--tls-certificate and --tls-key belong together, and --client-ca needs both")
    return settings.Tls(certificate, key, client_ca)


def _check_open(address: settings.Endpoint | None, *, is_protected: bool, insecure: bool) -> None:
    """Reject a non-loopback address without TLS and authentication, unless `--insecure` is set."""
    if address is not None and not (is_protected or insecure or settings.is_loopback(address)):
        raise BadSetting(
            f"listening on {address} lets anyone in: it needs TLS and authentication (see --help),"
            " or --insecure to listen without them"
        )


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command; an expected error becomes one line and exit code 1."""
    try:
        app.run(main)
    except (app.StartFailed, GatewayFailed, BadRecording, SymbolNotListed, OSError) as error:
        print(f"chronobook-server: {one_line(str(error), _LONGEST_ERROR)}", file=sys.stderr)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chronobook-server")
def main() -> None:
    """Exact Binance USDⓈ-M futures order books and every level change, over gRPC and REST."""
    app.configure_logs()


@main.command()
@serve_options
@open_options(option)
@option("--drain", "drain_ms", type=DURATION, default="2s", help="How long to serve on when told to end, so that"
        " clients of the health service can see it; not at all without such clients.")  # fmt: skip
@option("--gateway-name", default=None, help="The name in the gateway's certificate (common name, or alternative name):"
        " the server believes its headers about callers. Needs --client-ca.")  # fmt: skip
@option("--log-calls", is_flag=True, help="Log every call with its request id, not only those that fail or are slow.")
def serve(
    *,
    tls_certificate: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    insecure: bool,
    **given: Any,
) -> None:
    """Keep order books and their history, and answer over gRPC."""
    made = _serve_settings(tls=_tls(tls_certificate, tls_key, client_ca), **given)
    if made.gateway_name is not None and client_ca is None:
        raise BadSetting("--gateway-name needs --client-ca: without it no client proves its name")
    for address in (made.listen, made.metrics):
        _check_open(address, is_protected=made.is_protected, insecure=insecure)
    run(app.serve(made))


def _serve_settings(*, symbols: tuple[str, ...], **given: Any) -> settings.ServeSettings:
    named = tuple(symbol for symbol in symbols if symbol != settings.ALL_SYMBOLS)
    return settings.ServeSettings(symbols=named, all_symbols=len(named) < len(symbols), **given)


@main.command()
@gateway_option("--listen", type=ADDRESS, default=DEFAULT_GATEWAY, help="Address to serve REST on.")
@option(
    "--upstream", "upstreams", type=ENDPOINTS, default=DEFAULT_LISTEN, help="Addresses of the servers, one or several."
)
@open_options(gateway_option)
@gateway_option("--jwt-keys", type=FILE, default=None, help="JWKS file: only callers with a token signed by its keys.")
@gateway_option("--jwt-issuer", default=None, help="Issuer that the token must name (iss).")
@gateway_option("--jwt-audience", default=None, help="Audience that the token must name (aud).")
@gateway_option("--rate-limit", type=click.IntRange(1, 10**6), default=100,
                help="At the edge: requests a second of one address, twice as many at once.")  # fmt: skip
@gateway_option("--workers", type=click.IntRange(1, 64), default=2,
                help="Threads of Envoy. One costs less a request, but a large answer holds up all others.")  # fmt: skip
@gateway_option("--upstream-ca", type=FILE, default=None, help="PEM file: ask the servers over TLS, of this CA.")
@gateway_option("--upstream-name", default=None, help="The name in their certificates; else the first one's host.")
@gateway_option("--upstream-certificate", type=FILE, default=None, help="PEM file of the certificate to show them.")
@gateway_option("--upstream-key", type=FILE, default=None, help="PEM file of its key.")
@click.option("--print-config", is_flag=True, help="Print Envoy's configuration, and do not start Envoy.")
def gateway(*, insecure: bool, print_config: bool, **given: Any) -> None:
    """Run Envoy in the foreground: the REST face of servers.

    On loopback it answers this machine alone. Beyond it, or with TLS or tokens, it is the edge that faces a network.
    """
    made = gateway_settings(**given)
    _check_open(made.listen, is_protected=made.is_protected, insecure=insecure)
    _check_open(made.metrics, is_protected=False, insecure=insecure)
    if print_config:
        print(envoy_config(made, admin=Path("admin.sock")), end="")
        return

    async def command() -> None:
        await run_gateway(made, stopping=app.stop_signal())

    run(command())


def gateway_settings(
    *, upstreams: tuple[settings.Endpoint, ...], tls_certificate: Path | None, tls_key: Path | None,
    client_ca: Path | None, jwt_keys: Path | None, jwt_issuer: str | None, jwt_audience: str | None,
    upstream_ca: Path | None, upstream_name: str | None, upstream_certificate: Path | None, upstream_key: Path | None,
    **given: Any,
) -> settings.GatewaySettings:  # fmt: skip
    """Return the settings from the options. Raises BadSetting."""
    tokens = upstream_tls = name = None
    if jwt_keys or jwt_issuer or jwt_audience:
        if not (jwt_keys and jwt_issuer and jwt_audience):
            raise BadSetting("--jwt-keys, --jwt-issuer and --jwt-audience belong together")
        tokens = settings.Tokens(jwt_keys, jwt_issuer, jwt_audience)
    if upstream_ca or upstream_certificate or upstream_key or upstream_name:
        first = upstreams[0]
        name = upstream_name or (first.host if isinstance(first, settings.Address) else None)
        if not (upstream_ca and upstream_certificate and upstream_key and name):
            raise BadSetting("--upstream-ca, --upstream-certificate and --upstream-key belong together")
        upstream_tls = settings.Tls(upstream_certificate, upstream_key, upstream_ca)
    if given["listen"].port == 0:
        raise BadSetting("--listen needs a port other than 0: the gateway reports no chosen port")
    if len({type(each) for each in upstreams}) > 1:
        raise BadSetting("--upstream takes addresses or unix sockets, not both at once")
    return settings.GatewaySettings(
        upstreams=upstreams,
        tls=_tls(tls_certificate, tls_key, client_ca),
        tokens=tokens,
        upstream_tls=upstream_tls,
        upstream_name=name or "",
        **given,
    )


@main.command("run")
@serve_options
def run_both(**given: Any) -> None:
    """Serve and run the gateway on its default address, in one process, as `make run` does."""
    serving = _serve_settings(**given)
    _check_open(serving.listen, is_protected=False, insecure=False)
    gate = settings.GatewaySettings(settings.parse_address(DEFAULT_GATEWAY), (serving.listen,))

    async def command() -> None:
        await app.first_of(app.serve(serving), run_gateway(gate, stopping=asyncio.Event()))

    run(command())


@main.command("record")
@option("--symbols", type=SYMBOLS, default="ETHUSDT", help="Symbols to record. ALL: every contract that is traded.")
@exchange_options
@option("--output", type=click.Path(path_type=Path), required=True,
        help="A folder, or one file: .jsonl.zst, .jsonl.gz or .jsonl.")  # fmt: skip
@option(
    "--rotate-interval",
    "rotate_ms",
    type=DURATION,
    default="1h",
    help="In a folder, the time after which a new file begins.",
)
@option("--rotate-bytes", type=SIZE, default="1GB", help="In a folder, the size after which a new file begins.")
@option("--max-bytes", type=SIZE, default=None, help="Stop after about this many bytes; by default at Ctrl+C.")
def record_streams(
    *,
    symbols: tuple[str, ...],
    rest_url: str,
    stream_url: str,
    update_speed: str,
    output: Path,
    rotate_ms: int,
    rotate_bytes: int,
    max_bytes: int | None,
) -> None:
    """Record streams and snapshots as they come, for `simulate --replay`."""
    limits = Limits(file_ns=rotate_ms * 1_000_000, file_bytes=rotate_bytes, total_bytes=max_bytes)

    async def command() -> None:
        stopping = app.stop_signal()
        async with CaptureFile(output, limits) as recording:
            print(f"chronobook recorder: {','.join(symbols)} from {stream_url} to {output}", flush=True)
            network = RealNetwork(rest_url=rest_url, stream_url=stream_url)
            recorder = record(network, symbols, update_speed, recording, random=Random())
            await app.first_of(recorder, recording.ended(), stopping.wait())
        print(
            f"chronobook recorder: {recording.frames} frames and {recording.replies} replies,"
            f" {recording.unreadable} of them unreadable, in {recording.size} bytes"
        )

    run(command())


@main.command()
def demo() -> None:
    """Show the whole system at work on a simulated exchange, until Ctrl+C."""
    run(run_demo())


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0 or speed == float("inf"):
        raise ValueError(f"{text!r} is neither a number above 0 nor max")
    return speed


RATE = click.FloatRange(0, 1)
SECONDS = click.FloatRange(0)

fault_options = options(
    click.option("--drop", type=RATE, default=0.0, help="Fraction of events that are never sent."),
    click.option("--repeat", type=RATE, default=0.0, help="Fraction of events that are sent twice."),
    click.option("--malform", type=RATE, default=0.0, help="Fraction of events that are sent unreadable."),
    click.option("--junk", type=RATE, default=0.0, help="Fraction of events with an unreadable frame beside them."),
    click.option("--disconnect", type=RATE, default=0.0, help="Fraction of events after which all streams are cut."),
    click.option("--straddle", type=RATE, default=0.0, help="Fraction of snapshots with an id inside an event."),
    click.option("--stale", type=RATE, default=0.0, help="Fraction of snapshots that are too old."),
    click.option("--refuse", type=RATE, default=0.0, help="Fraction of snapshot requests that are refused."),
    click.option("--refuse-status", type=click.IntRange(400, 599), default=429, help="HTTP status of these refusals."),
    click.option("--retry-after", type=click.IntRange(0), default=1, help="Seconds that a 429 or 418 asks to wait."),
    click.option("--snapshot-delay", type=SECONDS, default=0.0, help="Seconds before every snapshot."),
)


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="Port on 127.0.0.1.")
@click.option("--symbols", type=SYMBOLS, default=None, help="Symbols; by default ETHUSDT, or those of the recording.")
@click.option("--seed", type=int, default=None, help="Seed of everything random; by default a new one, printed.")
@click.option("--replay", type=click.Path(exists=True, path_type=Path), default=None,
              help="Recorded lines (receive_ns SPACE json): a file, plain, .gz or .zst, or a folder.")  # fmt: skip
@click.option("--speed", type=Parsed("speed", _speed), default="1", show_default=True,
              help="Multiple of the recorded speed, or max.")  # fmt: skip
@fault_options
def simulate(
    *,
    port: int,
    symbols: tuple[str, ...] | None,
    seed: int | None,
    replay: Path | None,
    speed: float | None,
    **faults: Any,
) -> None:
    """Run a simulated exchange on loopback: made up from a seed, or replayed, with faults if wanted."""

    async def command() -> None:
        simulator = run_simulator(
            port=port, symbols=symbols or (), seed=seed, replay=replay, speed=speed, faults=Faults(**faults)
        )
        await app.first_of(simulator, app.stop_signal().wait())

    run(command())


if __name__ == "__main__":
    main()
