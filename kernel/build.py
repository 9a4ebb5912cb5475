"""Builder of the kernel: `python kernel/build.py` makes the extension in the server's package, if a compiler is there.

`--sanitize` runs the tests of the core, and Python's tests of the kernel, with address and undefined-behaviour checks.
`--wheels FOLDER` makes a wheel for each platform of TARGETS, with the package ziglang, and one without the kernel.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
ROOT = SOURCES.parent
CORE = ("memory.c", "frame.c", "book.c", "levels.c")
BINDING = ("module.c", "py_book.c", "py_levels.c")
EXTENSION = ROOT / "server" / "chronobook_server" / "kernel" / "_compiled.abi3.so"
# The variable names the platform of a wheel: a name of TARGETS, "none", or empty for this machine.
VARIABLE = "CHRONOBOOK_KERNEL"
NONE = "none"
# Python 3.11 is the oldest one whose limited API has buffers.
_FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Wno-missing-field-initializers")
_SHARED = ("-shared", "-fPIC", "-fvisibility=hidden", "-DPy_LIMITED_API=0x030B0000")
_PYTHON_TAG = "cp311-abi3"
# Name for zig, and tag of the wheel's platform.
TARGETS = {
    "x86_64-linux-gnu.2.17": "manylinux_2_17_x86_64",
    "aarch64-linux-gnu.2.17": "manylinux_2_17_aarch64",
    "x86_64-linux-musl": "musllinux_1_2_x86_64",
    "aarch64-linux-musl": "musllinux_1_2_aarch64",
    "aarch64-macos.11.0": "macosx_11_0_arm64",
}
_SANITIZE = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
# Counters that libFuzzer reads, without the depth of the stack, which atheris does not read.
_COVERAGE = ("-g", "-O1", "-fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp", "-fno-sanitize=undefined")


class NoCompiler(RuntimeError):
    """The kernel cannot be built here, for a reason in words."""


def zig(*command: str) -> list[str]:
    """Return a command of ziglang. Raises NoCompiler."""
    if find_spec("ziglang") is None:
        raise NoCompiler("there is no package ziglang")
    return [sys.executable, "-m", "ziglang", *command]


def compiler() -> list[str]:
    """Return the command of a C compiler. Raises NoCompiler."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    try:
        return zig("cc")
    except NoCompiler:
        raise NoCompiler("there is no C compiler, and no package ziglang") from None


def _headers() -> str:
    folder = Path(sysconfig.get_path("include"))
    if not (folder / "Python.h").exists():
        raise NoCompiler("Python's headers are missing")
    return f"-I{folder}"


def _paths(names: Sequence[str]) -> list[str]:
    return [str(SOURCES / name) for name in names]


def build(extension: Path, *, target: str = "", flags: Sequence[str] = ("-O2",)) -> None:
    """Make the extension, for this machine or a target of zig. Raises NoCompiler and CalledProcessError."""
    command = [*zig("cc"), "-target", target, "-s"] if target else compiler()
    if "macos" in (target or sys.platform.replace("darwin", "macos")):
        flags = (*flags, "-Wl,-undefined,dynamic_lookup")
    made = extension.with_suffix(".tmp")
    sources = _paths((*CORE, *BINDING))
    subprocess.run([*command, *_FLAGS, *_SHARED, *flags, _headers(), *sources, "-o", str(made)], check=True)
    made.replace(extension)


def build_with_coverage(extension: Path) -> None:
    """Make the extension with counters for atheris. Raises NoCompiler and CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in _paths((*CORE, *BINDING)):
            objects.append(str(Path(folder) / f"{Path(source).stem}.o"))
            subprocess.run([*zig("cc"), *_FLAGS, "-fPIC", "-DPy_LIMITED_API=0x030B0000", *_COVERAGE, _headers(),
                            "-c", source, "-o", objects[-1]], check=True)  # fmt: skip
        # zig would link counters of its own.
        subprocess.run([*zig("ld.lld"), "-shared", *objects, "-o", str(extension)], check=True)


def sanitize() -> None:
    """Run the tests of the core, and Python's tests of the kernel, with checks. Raises NoCompiler."""
    gcc = shutil.which("gcc")
    if gcc is None:
        raise NoCompiler("there is no gcc, whose checkers Python can load")
    with tempfile.TemporaryDirectory() as folder:
        program, extension = Path(folder) / "test_core", Path(folder) / "_compiled.so"
        sources = _paths((*CORE, "tests/test_core.c"))
        subprocess.run(
            [gcc, *_FLAGS, *_SANITIZE, "-DKERNEL_FAULTS", f"-I{SOURCES}", *sources, "-o", str(program)], check=True
        )
        subprocess.run([str(program)], check=True)
        subprocess.run(
            [gcc, *_FLAGS, *_SHARED, *_SANITIZE, _headers(), *_paths((*CORE, *BINDING)), "-o", str(extension)],
            check=True,
        )
        library = subprocess.run(
            [gcc, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
        ).stdout.strip()
        # Python itself leaves memory behind.
        environment = os.environ | {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
        environment |= {"TEST_PROFILE": "mutation", "CHRONOBOOK_KERNEL_EVENTS": "5000"}  # the checks are slow
        subprocess.run([sys.executable, str(SOURCES / "tests" / "checked.py"), str(extension)],
                       check=True, cwd=ROOT, env=environment)  # fmt: skip


def wheels(folder: Path) -> None:
    """Make the wheels of all targets, and the one without the kernel. Raises NoCompiler."""
    zig()
    for name in (NONE, *TARGETS):
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
                       check=True, cwd=ROOT, env=os.environ | {VARIABLE: name})  # fmt: skip


def wheel_tag(target: str) -> str:
    """Return the tag of a wheel with the extension for a target, or for this machine."""
    platform = TARGETS.get(target) or sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"{_PYTHON_TAG}-{platform}"


def main() -> int:
    """Do as the arguments say. Without a compiler the Python path serves, so that is no error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    try:
        if given.sanitize:
            sanitize()
        elif given.wheels is not None:
            wheels(given.wheels)
        else:
            build(EXTENSION)
    except NoCompiler as reason:
        print(f"the kernel is not built or checked: {reason}")
        if given.wheels is not None:
            return 1
        if not given.sanitize:
            EXTENSION.unlink(missing_ok=True)  # one of older sources
    return 0


if __name__ == "__main__":
    sys.exit(main())
