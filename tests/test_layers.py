"""Rooms import downward only: no circles, two independent witnesses, and no private name of another room."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ufm

ROOT = Path(ufm.__file__).parent
FACE = ("__init__.py", "__main__.py")
SOURCES = {p.relative_to(ROOT): p.read_text() for p in ROOT.rglob("*.py") if str(p.relative_to(ROOT)) not in FACE}
HIDDEN = re.compile(r"_(?!_)")
THREADS = ("threading", "concurrent", "multiprocessing")
ROOMS = {path.parts[0].removesuffix(".py") for path in SOURCES}


def imports(text):
    """Dotted names that are imported, and whether for types alone."""
    tree = ast.parse(text)
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    hidden = {id(inner) for block in typing for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in hidden) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide their room"
            yield from ((f"{node.module}.{alias.name}", id(node) in hidden) for alias in node.names)


def foreign(sources):
    """Room, dotted name below ``ufm``, and whether for types alone, of every import from another room."""
    for path, text in sources.items():
        here = path.parts[0].removesuffix(".py")
        for name, hidden in imports(text):
            head, *rest = name.split(".")
            if head == "ufm" and rest[:1] != [here]:
                yield here, rest, hidden


def circle(sources):
    """Rooms of one circle of imports; None where there is none."""
    needs = {}
    for here, there, hidden in foreign(sources):
        if not hidden:
            needs.setdefault(here, set()).add(there[0])
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def private(sources):
    """Names with an underscore that are taken from within another room."""
    return [(here, ".".join(there)) for here, there, _ in foreign(sources) if any(map(HIDDEN.match, there[1:]))]


def through_the_face(sources):
    """Imports of what ``ufm/__init__.py`` gathers: it stands on every room."""
    return [(here, there) for here, there, _ in foreign(sources) if not there or there[0] not in ROOMS]


def test_rooms_import_without_a_circle():
    assert {"theory", "solvers", "plotting"} <= ROOMS
    assert circle(SOURCES) is None
    assert through_the_face(SOURCES) == []


def test_one_place_decides_about_threads():
    users = {str(path) for path, text in SOURCES.items() for name, _ in imports(text) if name.startswith(THREADS)}
    assert users == {"_parallel.py"}


def test_theory_and_solvers_are_two_witnesses():
    """Neither imports the other, not even for a type."""
    pairs = {(here, there[0]) for here, there, _ in foreign(SOURCES) if there}
    assert ("theory", "problem") in pairs
    assert not {("theory", "solvers"), ("solvers", "theory")} & pairs


def test_a_solve_loads_no_theory():
    """Only `Solution.save` certifies, and it takes no part in a solve."""
    code = "import sys, ufm.solvers; sys.exit(any(name.startswith('ufm.theory') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0


def test_no_private_name_crosses_a_wall():
    assert private(SOURCES) == []


@pytest.mark.parametrize("line", ["from ufm.sweeps import Sweep", "import ufm.sweeps", "from ufm import sweeps"])
def test_a_planted_circle_is_found(line):
    planted = SOURCES | {Path("plotting/planted.py"): f"def late():\n    {line}"}
    assert {"plotting", "sweeps"} <= set(circle(planted))
    types = SOURCES | {Path("plotting/planted.py"): f"if TYPE_CHECKING:\n    {line}"}
    assert circle(types) is None


def test_planted_private_names_and_faces_are_found():
    planted = SOURCES | {Path("plotting/planted.py"): "from ufm.sweeps._result import Sweep\nfrom ufm.theory import _x"}
    assert private(planted) == [("plotting", "sweeps._result.Sweep"), ("plotting", "theory._x")]
    for line in ("import ufm", "from ufm import Problem"):
        assert through_the_face({Path("plotting/planted.py"): line})
