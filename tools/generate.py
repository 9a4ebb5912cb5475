"""Generator of the files made from the contract: stubs, Envoy's descriptor set and the OpenAPI description.

`python tools/generate.py` writes into the tree. `--check` writes nothing and exits 1 when the tree differs.
"""

import argparse
import filecmp
import json
import shutil
import sys
import tempfile
from pathlib import Path

import google.rpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools import openapi

ROOT = Path(__file__).resolve().parent.parent
GOOGLE = ROOT / ".build" / "googleapis"
# Protos that the contract imports, and those that Envoy needs to print the details of an error.
GOOGLE_PROTOS = (
    "google/api/annotations.proto",
    "google/api/http.proto",
    "google/api/httpbody.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)
STUBS = Path("clients/python/chronobook/v1")
DESCRIPTOR = Path("envoy/descriptor.binpb")
OPENAPI = Path("envoy/openapi.json")


def copy_google_protos() -> None:
    """Copy google's protos from the installed wheel to the folder of buf and protoc."""
    wheel = Path(next(iter(google.rpc.__path__))).parent.parent
    for name in GOOGLE_PROTOS:
        target = GOOGLE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(wheel / name, target)


def run_protoc(*arguments: str) -> None:
    """Run protoc with the include paths of this tree; raises SystemExit when it fails."""
    well_known = Path(next(iter(sys.modules["grpc_tools"].__path__))) / "_proto"
    include = [f"-I{path}" for path in (ROOT / "proto", GOOGLE, well_known)]
    if protoc.main(["protoc", *include, *arguments]) != 0:
        raise SystemExit("protoc failed")


def generate(target: Path) -> None:
    """Write all generated files below `target`."""
    python = target / STUBS.parent.parent
    python.mkdir(parents=True, exist_ok=True)
    (target / DESCRIPTOR).parent.mkdir(parents=True, exist_ok=True)
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    plugin = Path(sys.executable).parent / "protoc-gen-mypy"
    run_protoc(
        f"--plugin=protoc-gen-mypy={plugin}",
        f"--plugin=protoc-gen-mypy_grpc={plugin}_grpc",
        f"--python_out={python}",
        f"--grpc_python_out={python}",
        f"--mypy_out=quiet:{python}",
        f"--mypy_grpc_out=quiet:{python}",
        *protos,
    )
    for stub in (target / STUBS).glob("*_pb2_grpc.py*"):
        if not stub.name.startswith("order_book_service_"):
            stub.unlink()  # the other files have no service
    run_protoc(
        f"--descriptor_set_out={target / DESCRIPTOR}", "--include_imports", *protos, "google/rpc/error_details.proto"
    )
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder) / "described"
        run_protoc(f"--descriptor_set_out={described}", "--include_imports", "--include_source_info", *protos)
        made = openapi.document(FileDescriptorSet.FromString(described.read_bytes()), "v1")
    (target / OPENAPI).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def differences(fresh: Path) -> list[str]:
    """Name every generated file that differs from the one in the tree."""
    made = [path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()]
    kept = [path.relative_to(ROOT) for path in (ROOT / STUBS).glob("*_pb2*")]
    return [
        str(path)
        for path in sorted({*made, *kept})
        if not (fresh / path).exists()
        or not (ROOT / path).exists()
        or not filecmp.cmp(fresh / path, ROOT / path, shallow=False)
    ]


def main() -> int:
    """Generate, or with --check compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when the tree differs")
    check = parser.parse_args().check
    copy_google_protos()
    if not check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = differences(Path(folder))
    for path in stale:
        print(f"{path}: differs from its source; run `make generate`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
