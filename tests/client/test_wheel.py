"""The client's wheel alone, in an environment that has nothing else."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.served import HandFed, served

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import importlib.util, sys
from chronobook import Client, ExtraMissing, __file__ as where
assert where.startswith(sys.prefix), where
for absent in ("chronobook_server", "numpy", "pandas", "pyarrow", "grpc_tools"):
    assert importlib.util.find_spec(absent) is None, absent
with Client(sys.argv[1]) as client:
    print(client.quantity(99, timestamp=10).quantity)
    try:
        client.level_changes(99).to_pandas()
    except ExtraMissing as error:
        print(error)
"""


def run(*command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment with the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "venv", folder / "env")
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT / "clients" / "python")
    (wheel,) = folder.glob("chronobook-*.whl")
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel)
    return python.parent


@pytest.mark.timeout(300)
async def test_the_wheel_alone_asks_a_server(installed: Path) -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        output = await asyncio.to_thread(run, installed / "python", "-c", PROGRAM, running.address)
        assert output.splitlines() == ["1.5", "this needs pandas: pip install 'chronobook[pandas]'"]
        output = await asyncio.to_thread(run, installed / "chronobook", "quantity", "99", "--server", running.address)
        assert "quantity           1.5" in output.splitlines()
