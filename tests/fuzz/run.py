"""One fuzzing process: `python -m tests.fuzz.run TARGET --seconds N --seed S`, which ends at the first finding.

A finding is printed, and its input is in `FOLDER/TARGET/findings`, from where it can be copied to
`tests/fuzz/cases/TARGET`. Inputs that reached something new are kept in `FOLDER/TARGET/corpus`, and the next run begins
with them; in an empty folder a seed makes the same inputs every time. `--runs` bounds their number, 0 is for any.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import atheris  # type: ignore[import-untyped]
import structlog

from kernel.build import build_with_coverage
from kernel.tests.checked import install
from tests.fuzz import TARGETS

# An answer takes milliseconds.
_HANGS_SECONDS = 20
# The fuzzer itself keeps some kilobytes of every input: a run of hours wants more.
_MOST_MB = 2048
_LONGEST = 8192

Check: TypeAlias = Callable[[bytes], None]


def main() -> None:
    """Fuzz one target. Never returns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--megabytes", type=int, default=_MOST_MB)
    parser.add_argument("--folder", type=Path, default=Path(".build/fuzz"))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    findings, corpus = (options.folder / options.target / name for name in ("findings", "corpus"))
    findings.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(exist_ok=True)
    check, seeds = (_kernel if options.target == "kernel" else _imported)(options.target, options.folder)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
    flags = [
        f"-max_total_time={options.seconds}",
        f"-runs={options.runs or -1}",
        f"-seed={options.seed}",
        f"-timeout={_HANGS_SECONDS}",
        f"-rss_limit_mb={options.megabytes}",
        f"-max_len={_LONGEST}",
        f"-artifact_prefix={findings}/",
    ]
    print(f"fuzzing {options.target} with seed {options.seed}", file=sys.stderr, flush=True)
    atheris.Setup([sys.argv[0], *flags, str(corpus)], check)
    atheris.Fuzz()


def _imported(target: str, _: Path) -> tuple[Check, list[bytes]]:
    """Return the check and the first inputs of a target."""
    with atheris.instrument_imports(include=["chronobook_server", "chronobook"]):
        module = import_module(f"tests.fuzz.{target}")
    return module.check, module.seeds()


def _kernel(target: str, folder: Path) -> tuple[Check, list[bytes]]:
    """Return the same of the compiled kernel, which is built with counters of its own.

    The functions of libFuzzer that count exist from the first input on, so all is imported anew then.
    """
    extension = (folder / "_compiled.so").resolve()
    build_with_coverage(extension)
    seeds: list[bytes] = import_module(f"tests.fuzz.{target}").seeds()
    for name in tuple(sys.modules):
        if name.startswith(("chronobook_server", "testkit", "tests.fuzz.")):
            del sys.modules[name]
    sys.setdlopenflags(os.RTLD_GLOBAL | os.RTLD_NOW)
    checks: list[Check] = []

    def check(data: bytes) -> None:
        if not checks:
            install(extension)
            checks.append(_imported(target, folder)[0])
        checks[0](data)

    return check, seeds


if __name__ == "__main__":
    main()
