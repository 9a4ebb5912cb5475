"""Print the structure of the Python packages: modules, lines, imports between packages, and import circles.

`python tools/structure.py` reads the server and the client; folders as arguments choose others. A room is a package, or
a module that stands beside the packages. An import inside of a function or under TYPE_CHECKING counts like any other.
The command exits with 1 if modules or rooms import each other in a circle.
"""

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ("server/chronobook_server", "clients/python/chronobook")

Graph = dict[str, set[str]]
"""The names that each name imports."""


def modules_below(folder: Path) -> dict[str, Path]:
    """Return the files of a package by module name; generated modules are left out."""
    files = sorted(path for path in folder.rglob("*.py") if not path.stem.endswith(("_pb2", "_pb2_grpc")))
    return {".".join(_parts(path.relative_to(folder.parent))): path for path in files}


def _parts(path: Path) -> tuple[str, ...]:
    return path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts


def imports_of(name: str, path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports; of `from a import b`, both `a` and `a.b`."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def import_graph(modules: Mapping[str, Path]) -> Graph:
    """Return which modules import which. `from package import module` is an import of the module only."""
    graph: Graph = {}
    for name, path in modules.items():
        found = {target for target in imports_of(name, path) if target in modules and target != name}
        graph[name] = {target for target in found if not any(other.startswith(f"{target}.") for other in found)}
    return graph


def room_of(module: str, modules: Mapping[str, Path]) -> str:
    """Return the package of a module, or the module itself if it stands beside packages at the top."""
    if modules[module].stem == "__init__":
        return module
    package = module.rpartition(".")[0]
    return package if "." in package else module


def room_graph(graph: Graph, modules: Mapping[str, Path]) -> Graph:
    """Return which rooms import which."""
    rooms: Graph = {room_of(name, modules): set() for name in graph}
    for name, targets in graph.items():
        here = room_of(name, modules)
        rooms[here] |= {room_of(target, modules) for target in targets} - {here}
    return rooms


def circles(graph: Graph) -> list[list[str]]:
    """Return circles of imports, each as the names along it. One is found at a time, and its first arrow cut."""
    left = {name: set(targets) for name, targets in graph.items()}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1][::-1]
            found.append(circle)
            left[circle[0]].discard(circle[1])
        else:
            return found


def report(folder: Path) -> int:
    """Print the structure of one package; return the number of circles."""
    modules = modules_below(folder)
    graph = import_graph(modules)
    rooms = room_graph(graph, modules)
    print(f"{'room':<44}{'modules':>8}{'lines':>7}  imports")
    for room, targets in sorted(rooms.items()):
        files = [path for name, path in modules.items() if room_of(name, modules) == room]
        count = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        short = sorted(target.partition(".")[2] or target for target in targets)
        print(f"{room:<44}{len(files):>8}{count:>7}  {' '.join(short)}")
    loops = circles(graph) + circles(rooms)
    arrows = sum(map(len, rooms.values()))
    print(f"{len(modules)} modules in {len(rooms)} rooms, {arrows} arrows between rooms, {len(loops)} circles")
    for loop in loops:
        print("circle:", " -> ".join(loop))
    return len(loops)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[ROOT / folder for folder in DEFAULT])
    return 1 if sum([report(folder) for folder in parser.parse_args().folders]) else 0


if __name__ == "__main__":
    sys.exit(main())
