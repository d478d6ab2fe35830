"""How the package hangs together: no circle of imports, no arrow that runs back up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diffsplit"
ROOMS = [
    {"errors", "counting"},
    {"arguments"},
    {"devices", "noise", "schedules"},
    {"channels", "operators"},
    {"problem", "io"},
    {"priors", "tasks", "metrics", "fid"},
    {"data_steps", "plots", "plausibility"},
    {"solvers"},
    {"uncertainty", "training", "interop", "calibration"},
    {"bench"},
    {"report"},
    {"cli", "__main__", "__init__"},
]
"""From the ground floor up; a room imports from its own floor and those below it."""


def modules() -> dict[str, Path]:
    """Dotted name, without the package's, of every file."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__") or "__init__"] = path
    return names


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, inside functions too, but not for types."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffsplit"):
            base = (node.module or "").removeprefix("diffsplit").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in known else base or "__init__")
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("diffsplit.") for a in node.names if "diffsplit." in a.name
            }
    return found & set(known)


def test_no_two_files_import_each_other_not_even_through_others() -> None:
    known = modules()
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_room_imports_from_a_room_above_it() -> None:
    known = modules()
    floor = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}
    for name, path in known.items():
        own = floor[name.split(".")[0]]
        for other in imports(path, known):
            assert floor[other.split(".")[0]] <= own, f"{name} imports {other}"


@pytest.mark.parametrize("family", ["operators", "channels", "priors", "solvers"])
def test_every_file_of_a_family_is_reached_from_its_front_door(family: str) -> None:
    """What nothing imports is dead."""
    known = modules()
    reached, waiting = set(), ["__init__", "cli", "cli.main", "__main__", "training"]
    while waiting:
        name = waiting.pop()
        if name not in reached and name in known:
            reached.add(name)
            waiting += imports(known[name], known)
    files = {name for name in known if name.split(".")[0] == family}
    inits = {name for name in files if known[name].name == "__init__.py"}
    assert files - reached <= inits
