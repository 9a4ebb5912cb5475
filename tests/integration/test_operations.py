"""Dashboard, alerts and the operators' guide: made for the metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from chronobook_server.commands import main
from chronobook_server.config.settings import Address, is_loopback
from chronobook_server.runtime.app import serving
from testkit.harness.edge import running_edge
from testkit.harness.whole_system import free_port, until
from tests.integration.runtime.test_metrics import scraped, settings
from tests.integration.venue.test_feed import stepped

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "alerts.yml"
NAME = re.compile(r"\b(?:chronobook|process|python|envoy)_[a-z_]+")
LABELS = re.compile(r"\{[^}]*\}|\bby \([^)]*\)")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Return every expression of the dashboard and of the alerts."""
    board = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(shown) > 20
    return [*shown, *(rule["expr"] for rule in rules())]


async def of_envoy(folder: Path, server: int) -> set[str]:
    """Return the names of the metrics of an edge in front of this server."""
    metrics = Address("127.0.0.1", free_port())
    async with running_edge(folder, [Address("127.0.0.1", server)], metrics=metrics) as edge:
        async with aiohttp.ClientSession(headers=edge.bearer) as http:
            async with http.get(f"{edge.base}/status", ssl=edge.trusting) as reply:
                assert reply.status == 200
        async with aiohttp.ClientSession() as http, http.get(f"http://{metrics}/metrics") as reply:
            return set(re.findall(r"^(\w+)\{", await reply.text(), re.MULTILINE))


async def test_every_metric_that_is_shown_or_watched_exists(tmp_path: Path) -> None:
    simulator = stepped()
    await simulator.start()
    port = free_port()
    try:
        async with serving(settings(tmp_path, simulator.rest_url, simulator.stream_url, port)) as application:
            market = application.queries["ETHUSDT"]
            await until(lambda: market.is_synced)
            simulator.symbols["ETHUSDT"].drop_next = 1
            await simulator.step(2)
            await until(lambda: market.counts.resyncs == 1 and market.is_synced)
            await simulator.step(1)
            await until(lambda: market.counts.gap_seconds)
            application.server.calls["GetStatus"].took(0.001)
            application.server.calls["GetStatus"].codes["OK"] += 1
            found = {name for name, _ in await scraped(port)} | await of_envoy(tmp_path, application.server.port)
    finally:
        await simulator.stop()
    wanted = {name for expression in expressions() for name in NAME.findall(LABELS.sub("", expression))}
    assert wanted - found == set()
    ours = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in found if name.startswith("chronobook_")}
    assert len(ours) > 40


def test_the_guide_says_of_every_alert_what_to_do() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text()
    assert re.findall(r"^\*\*(\w+)\.\*\*", guide, re.MULTILINE) == [rule["alert"] for rule in rules()]


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is not installed"
)
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def commands() -> list[list[str]]:
    """Return the command lines in the files for Docker and systemd."""
    deploy = ROOT / "deploy"
    composed = [yaml.safe_load(path.read_text())["services"] for path in sorted(deploy.glob("compose*.yml"))]
    units = [path.read_text() for path in sorted((*deploy.glob("*.service"), *deploy.glob("*.service.d/*.conf")))]
    image = (deploy / "Dockerfile").read_text()
    started = [line.split()[1:] for unit in units for line in re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)]
    default = json.loads(re.findall(r"^CMD (.*)$", image, re.MULTILINE)[0])
    assert (len(composed), len(started)) == (2, 4)
    return [*(service["command"] for services in composed for service in services.values()), *started, default]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_what_is_deployed_is_a_command_that_there_is(words: list[str], tmp_path: Path) -> None:
    name, *options = words
    secrets = [word for word in options if word.startswith("/etc/chronobook/")]
    for secret in secrets:
        (tmp_path / Path(secret).name).touch()
    given = [str(tmp_path / Path(word).name) if word in secrets else word for word in options]
    context = main.main.commands[name].make_context(name, given)
    if name == "gateway":
        of_the_command = {"insecure", "print_config"}
        made = main.gateway_settings(**{key: each for key, each in context.params.items() if key not in of_the_command})
        # A gateway beyond the machine authenticates its callers.
        assert is_loopback(made.listen) or made.is_protected
