"""The client's wheel alone, in an environment that has nothing else."""

import asyncio
from pathlib import Path

import pytest

from testkit.harness.served import HandFed, served
from testkit.harness.wheels import CLIENT, installed, run

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


@pytest.mark.slow
async def test_the_wheel_alone_asks_a_server(tmp_path: Path) -> None:
    programs = await asyncio.to_thread(installed, tmp_path, CLIENT)
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        output = await asyncio.to_thread(run, programs / "python", "-c", PROGRAM, running.address)
        assert output.splitlines() == ["1.5", "this needs pandas: pip install 'chronobook[pandas]'"]
        output = await asyncio.to_thread(run, programs / "chronobook", "quantity", "99", "--server", running.address)
        assert "quantity           1.5" in output.splitlines()
