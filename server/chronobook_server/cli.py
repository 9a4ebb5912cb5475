"""The command `chronobook-server`. Every option can also be given as an environment variable, CHRONOBOOK_<OPTION>."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from chronobook_server import app, demo, settings
from chronobook_server.exchange.wire import UPDATE_SPEEDS
from chronobook_server.gateway import run_gateway
from chronobook_server.simulator import Faults, run_simulator

_Value = TypeVar("_Value")
_Command = Callable[..., None]
DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_GATEWAY = "127.0.0.1:8000"


class Parsed(click.ParamType):
    """An option whose text a function reads; its ValueError is what the user sees."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text; a default that is no text any more passes through."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


ADDRESS = Parsed("host:port", settings.parse_address)
SYMBOLS = Parsed("symbols", settings.parse_symbols)
DURATION = Parsed("duration", settings.parse_duration)
REST_URL = Parsed("url", lambda text: settings.parse_url(text, "http", "https"))
STREAM_URL = Parsed("url", lambda text: settings.parse_url(text, "ws", "wss"))


def option(name: str, **attributes: Any) -> Callable[[_Command], _Command]:
    """Declare an option that is also an environment variable, with its default in the help."""
    variable = "CHRONOBOOK_" + name.removeprefix("--").upper().replace("-", "_")
    return click.option(name, envvar=variable, show_default=True, **attributes)


def options(*decorators: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Join several options into one decorator, shown in this order."""

    def decorate(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


serve_options = options(
    option("--symbols", type=SYMBOLS, default="ETHUSDT", help="Symbols to keep; the first one is the default."),
    option("--rest-url", type=REST_URL, default=settings.LIVE_REST_URL, help="The base before /fapi/v1."),
    option("--stream-url", type=STREAM_URL, default=settings.LIVE_STREAM_URL, help="The base before /stream."),
    option("--update-speed", type=click.Choice(UPDATE_SPEEDS), default="100ms", help="How often events come."),
    option("--listen", type=ADDRESS, default=DEFAULT_LISTEN, help="Where gRPC is served."),
    option(
        "--data-dir",
        type=click.Path(path_type=Path),
        default=Path("data"),
        help="Directory of this server's own. It is prepared and checked; history is still in memory.",
    ),
    option("--retention", "retention_ms", type=DURATION, default="24h", help="How long history is kept."),
)
insecure_option = option("--insecure", is_flag=True, help="Listen beyond this machine without encryption.")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command; what it cannot do becomes one line and exit code 1."""
    try:
        app.run(main)
    except (app.StartFailed, OSError, ValueError) as error:
        print(f"chronobook-server: {error}", file=sys.stderr)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chronobook-server")
def main() -> None:
    """Exact Binance USDⓈ-M futures order books and every level change, over gRPC and REST."""
    app.configure_logs()


@main.command()
@serve_options
@insecure_option
def serve(*, insecure: bool, **given: Any) -> None:
    """Keep order books and their history, and answer over gRPC."""
    run(app.serve(_serve_settings(insecure=insecure, **given)))


def _serve_settings(*, insecure: bool, **given: Any) -> settings.ServeSettings:
    _require_loopback(given["listen"], insecure=insecure)
    return settings.ServeSettings(**given)


def _require_loopback(address: settings.Address, *, insecure: bool) -> None:
    try:
        settings.require_loopback(address, insecure=insecure)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@option("--listen", type=ADDRESS, default=DEFAULT_GATEWAY, help="Where REST, gRPC and gRPC-Web are served.")
@option("--upstream", type=ADDRESS, default=DEFAULT_LISTEN, help="Where the server is.")
@insecure_option
def gateway(*, listen: settings.Address, upstream: settings.Address, insecure: bool) -> None:
    """Run Envoy in the foreground: the REST face of a server."""
    _require_loopback(listen, insecure=insecure)
    run(_exit_with(run_gateway(listen=listen, upstream=upstream)))


async def _exit_with(command: Coroutine[Any, Any, int]) -> None:
    code = await command
    if code:
        sys.exit(code)
