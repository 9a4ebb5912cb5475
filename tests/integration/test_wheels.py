"""Both distributions: the wheels run alone in a new environment, and every archive contains the licence."""

import asyncio
import signal
import sys
import tarfile
from email.parser import BytesParser
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

from testkit.harness.waiting import PATIENCE
from testkit.harness.wheels import CLIENT, ROOT, SERVER, clean, installed, run


@pytest.mark.timeout(400)
async def test_the_wheels_run_the_whole_demo(tmp_path: Path) -> None:
    programs = await asyncio.to_thread(installed, tmp_path, CLIENT, SERVER)
    process = await asyncio.create_subprocess_exec(
        str(programs / "chronobook-server"), "demo", cwd=tmp_path, env=clean(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(PATIENCE):
        while '"state":"IN_SYNC"' not in said:
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0


def test_the_licence_is_the_standard_text() -> None:
    # googleapis-common-protos has the same licence and contains its standard text.
    standard = distribution("googleapis-common-protos").read_text("licenses/LICENSE")
    assert standard is not None
    assert "Version 2.0, January 2004" in standard
    assert (ROOT / "LICENSE").read_text() == standard


@pytest.mark.parametrize("project", [CLIENT, SERVER], ids=["client", "server"])
def test_wheel_and_source_archive_contain_the_licence(project: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-d", tmp_path, cwd=project)
    licence = (ROOT / "LICENSE").read_bytes()
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = BytesParser().parsebytes(archive.read(f"{folder}/METADATA"))
        assert archive.read(f"{folder}/licenses/LICENSE") == licence
    assert (metadata["License-Expression"], metadata.get_all("License-File")) == ("Apache-2.0", ["LICENSE"])
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        member = archive.extractfile(f"{source.name.removesuffix('.tar.gz')}/LICENSE")
        assert member is not None
        assert member.read() == licence
