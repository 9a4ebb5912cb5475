"""The OpenAPI description put to the test by schemathesis, through the real edge."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from chronobook_server.runtime.app import serving
from chronobook_server.simulator import Simulator
from testkit.harness.edge import running_edge
from testkit.harness.whole_system import settings_for, until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SEED, EXAMPLES = 7, 60
# `max_age` of nothing refuses every answer about now, with 503 as documented: so each request here allows an hour.
CONFIG = "[parameters]\nmax_age = 3600.0\n"
# Its false failures by code and call, with the reason.
EXPLAINED = {
    ("ST204", "QUERY"): "Envoy knows this new method, and refuses it without a content type: 400 before any 405",
}
# Two things are left out: streams, whose answers have no end, and the check that every described request succeeds,
# because valid instants and prices depend on the history.
OPTIONS = ("--exclude-path-regex", "^/watch", "--checks", "all", "--exclude-checks", "positive_data_acceptance")


async def run(folder: Path, base: str, bearer: str, ca: Path) -> tuple[dict[str, Any], str]:
    """Return schemathesis's report and output."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    report = folder / "report.json"
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", "schemathesis.toml", "run", str(ROOT / "envoy" / "openapi.json"), "--url", base),
        *("--header", f"authorization: {bearer}", "--tls-verify", str(ca), "--continue-on-failure", *OPTIONS),
        *("--seed", str(SEED), "--max-examples", str(EXAMPLES), "--report", "json", "--report-json-path", str(report)),
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert report.exists(), said.decode()
    loaded: dict[str, Any] = json.loads(report.read_text())
    return loaded, said.decode()


async def test_no_made_up_request_brings_a_fault_or_undescribed_answer(tmp_path: Path) -> None:
    simulator = Simulator(seed=SEED)
    await simulator.start()
    try:
        settings = settings_for(
            tmp_path,
            symbols=tuple(simulator.symbols),
            rest_url=simulator.rest_url,
            stream_url=simulator.stream_url,
        )
        async with serving(settings) as application, running_edge(tmp_path, [settings.listen]) as edge:
            await until(lambda: application.queries["ETHUSDT"].is_synced)
            report, said = await run(tmp_path, edge.base, edge.bearer["authorization"], edge.authority.ca)
    finally:
        await simulator.stop()
    found = {(each["code"], call) for each in report["failures"] for call in each["operations"]}
    assert {each for each in found if (each[0], each[1].split()[0]) not in EXPLAINED} == set(), said
    assert (report["complete"], report["errors"], report["operations"]["errored"]) == (True, [], 0), said
    assert report["operations"]["tested"] == 9
    assert report["test_cases"]["generated"] > 400
