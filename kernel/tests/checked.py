"""Run of Python's tests of the kernel on an extension with checks: `python kernel/tests/checked.py EXTENSION`."""

import importlib.util
import sys
from pathlib import Path

import pytest

_MODULE = "chronobook_server.kernel._compiled"
_TESTS = ("tests/unit/book/test_order_book.py", "tests/unit/symbols/test_frame_path.py", "tests/unit/kernel")


def install(extension: Path) -> None:
    """Load an extension in the place of the one in the server's package, which must not be imported yet."""
    spec = importlib.util.spec_from_file_location(_MODULE, extension)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[_MODULE] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "not python", *_TESTS]))
