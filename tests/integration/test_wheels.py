"""Both distributions: the wheels run alone in a new environment, and every archive contains the licence."""

import asyncio
import os
import signal
import sys
import tarfile
from email.parser import BytesParser
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

from chronobook_server.kernel import CHOICE
from kernel.build import NONE, TARGETS, VARIABLE
from testkit.harness.waiting import PATIENCE
from testkit.harness.wheels import CLIENT, ROOT, SERVER, clean, installed, run

# Whether the kernel is there, and the update id of a book after an event.
APPLIED = """
from chronobook_server.book.books import new_book
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Keyframe
from chronobook_server.kernel import CHOICE
book = new_book(Keyframe(Instrument("X", 1, 1), 1, 1, 1, 1, {100: 5}, KnownRange(1, 200)))
book.apply({101: 3}, {}, update_id=2, transaction_time=2)
print(CHOICE.is_compiled, book.update_id)
"""


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
    await asyncio.to_thread(check_paths, tmp_path, programs / "python")


def check_paths(folder: Path, python: Path) -> None:
    """Assert that the installed server uses the compiled kernel, and works with the wheel that lacks it."""
    assert CHOICE.is_there, "this machine builds the kernel"
    kernel = "import chronobook_server.kernel as kernel; print(kernel.CHOICE.is_compiled)"
    (wheel,) = folder.glob("chronobook_server-*.whl")
    assert "-cp311-abi3-linux_" in wheel.name
    assert run(python, "-c", kernel).split() == ["True"]
    assert run(python, "-c", APPLIED).split() == ["True", "2"]
    os.environ[VARIABLE] = NONE
    try:
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "pure", cwd=SERVER)
    finally:
        del os.environ[VARIABLE]
    (pure,) = (folder / "pure").glob("*.whl")
    assert pure.name.endswith("-py3-none-any.whl")
    run(
        python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--force-reinstall", pure
    )
    assert run(python, "-c", APPLIED).split() == ["False", "2"]


def test_a_wheel_of_each_platform_has_the_kernel_for_it(tmp_path: Path) -> None:
    run(sys.executable, SERVER / "kernel" / "build.py", "--wheels", tmp_path)
    beginnings = {
        "manylinux_2_17_x86_64": b"\x7fELF\x02\x01", "manylinux_2_17_aarch64": b"\x7fELF\x02\x01",
        "musllinux_1_2_x86_64": b"\x7fELF\x02\x01", "musllinux_1_2_aarch64": b"\x7fELF\x02\x01",
        "macosx_11_0_arm64": b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01",
    }  # fmt: skip
    machines = {"x86_64": 62, "aarch64": 183}  # of ELF
    wheels = {wheel.stem.rpartition("-")[2]: wheel for wheel in tmp_path.glob("*.whl")}
    assert wheels.keys() == {*beginnings, "any"} == {*TARGETS.values(), "any"}
    for platform, wheel in wheels.items():
        with ZipFile(wheel) as archive:
            compiled = [name for name in archive.namelist() if name.endswith(".so")]
            assert compiled == ([] if platform == "any" else ["chronobook_server/kernel/_compiled.abi3.so"])
            if compiled:
                data = archive.read(compiled[0])
                assert data.startswith(beginnings[platform])
                machine = next((number for name, number in machines.items() if platform.endswith(name)), None)
                assert machine is None or data[18] == machine


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
