"""Hook of the wheel's build: it adds the compiled kernel, if that can be built."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_INSTALLED = "chronobook_server/kernel/_compiled.abi3.so"


class KernelHook(BuildHookInterface[Any]):
    """The variable CHRONOBOOK_KERNEL names the target (kernel/build.py); without a compiler the wheel is pure."""

    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the extension, and add it to a wheel. An editable installation uses that of the checkout."""
        builder = _builder()
        target = os.environ.get(builder.VARIABLE, "")
        if version == "editable" or target == builder.NONE:
            return
        self._folder = tempfile.TemporaryDirectory()
        extension = Path(self._folder.name) / "_compiled.abi3.so"
        try:
            builder.build(extension, target=target)
        except (builder.NoCompiler, subprocess.CalledProcessError, OSError) as reason:
            if target:
                raise
            self.app.display_warning(f"the wheel is without the compiled kernel: {reason}")
            return
        build_data["force_include"][str(extension)] = _INSTALLED
        build_data["pure_python"] = False
        build_data["tag"] = builder.wheel_tag(target)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the built extension, which the wheel has."""
        if self._folder is not None:
            self._folder.cleanup()


def _builder() -> Any:
    spec = importlib.util.spec_from_file_location("kernel_build", Path(__file__).with_name("build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
