"""Optional libraries, imported at their first use."""

from importlib import import_module
from typing import Any


class ExtraMissing(ImportError):
    """A missing library that only an extra of this package installs."""


def extra(module: str, name: str) -> Any:
    """Return a module that the extra `name` of this package installs. Raises ExtraMissing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        needed = f"this needs {module.partition('.')[0]}: pip install 'chronobook[{name}]'"
        raise ExtraMissing(needed, name=error.name) from error
