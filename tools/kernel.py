"""Builder of the compiled kernel: `python tools/kernel.py` makes the extension in the server's package.

A C compiler is looked for in CC, then as cc, gcc, clang and the package ziglang. Without one, or without Python's
headers, nothing is made, a line says so, and the Python path serves.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "kernel"
CORE = ("memory.c", "frame.c", "book.c", "levels.c")
BINDING = ("module.c", "py_book.c", "py_levels.c")
EXTENSION = ROOT / "server" / "chronobook_server" / "kernel" / "_compiled.abi3.so"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")


def compiler() -> list[str] | None:
    """Return the command of a C compiler; None if there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def main() -> int:
    """Build the extension, if possible."""
    command, headers = compiler(), Path(sysconfig.get_path("include"))
    if command is None or not (headers / "Python.h").exists():
        what = "C compiler" if command is None else "Python.h"
        print(f"the kernel is not built, because there is no {what}: the Python path serves")
        EXTENSION.unlink(missing_ok=True)
        return 0
    sources = [str(SOURCES / name) for name in (*CORE, *BINDING)]
    made = EXTENSION.with_suffix(".tmp")
    subprocess.run(
        [*command, *FLAGS, "-shared", "-fPIC", "-fvisibility=hidden", "-DPy_LIMITED_API=0x030B0000", f"-I{headers}",
         *sources, "-o", str(made)],
        check=True,
    )  # fmt: skip
    made.replace(EXTENSION)
    return 0


if __name__ == "__main__":
    sys.exit(main())
