"""The rules of the house, held over every file of it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("common", "client", "server", "simulations")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def public_definitions(tree: ast.Module):
    """Every public function, class and method, with the names that lead to it."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            if not child.name.startswith("_"):
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    waiting.append((f"{prefix}{child.name}.", child))


def calls(tree: ast.Module, name: str):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def tracked_files() -> list[Path]:
    """The files git carries; a release without git is walked instead."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        return [
            ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()
        ]
    return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]


def test_every_module_and_everything_public_has_a_docstring() -> None:
    bare = [where(path, tree) for path, tree in TREES.items() if not ast.get_docstring(tree)]
    for path, tree in TREES.items():
        for name, node in public_definitions(tree):
            if not ast.get_docstring(node):
                bare.append(f"{where(path, node)} {name}")
    assert not bare, "without a docstring:\n" + "\n".join(bare)


def test_nothing_prints_but_a_command_line() -> None:
    printing = [
        where(path, node)
        for path, tree in TREES.items()
        if path.name != "cli.py"
        for node in calls(tree, "print")
    ]
    assert not printing


def test_nothing_asserts_outside_tests() -> None:
    """`python -O` removes an assert; what must hold is raised."""
    asserting = [
        where(path, node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert not asserting


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc")]


def test_no_pickle_is_read_or_written() -> None:
    """A checkpoint or a message that is unpickled runs its sender's code."""
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if {"pickle", "dill", "cloudpickle", "joblib"} & {name.split(".")[0] for name in names}:
                found.append(where(path, node))
    assert not found


def test_only_the_phantoms_and_trainings_know_chance_by_seed() -> None:
    """Python's `random` has one hidden state for the whole process; nobody here may use it."""
    users = [
        where(path, node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names)
    ]
    assert not users


def test_the_layers_hold() -> None:
    """common <- client | server <- simulations; client and server never meet."""
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


HEAVY = ("torch", "monai", "opacus", "sklearn", "matplotlib", "ray")


@pytest.mark.parametrize("module", ["client.app", "client.cli", "server.cli", "simulations.cli"])
def test_starting_costs_no_heavy_import(module: str) -> None:
    """The courier pays its start on every message; a command line on every word typed."""
    script = f"import sys, {module}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_training_needs_no_reader_of_images_and_no_statistics() -> None:
    """A site's service is started anew within a second, and a simulation starts once for every worker."""
    script = "import sys, client.duties, client.service; print([m for m in ('pydicom', 'gdcm', 'cv2', 'scipy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# Spelled in parts, so that this file does not find itself.
FORBIDDEN = re.compile("|".join(["/" + "work/", "/opt/" + "pypi", "/" + "root/", "extra-" + "index-url"]))
TEXT = {".py", ".md", ".toml", ".txt", ".html", ".css", ".json", ".cfg", ".yml", ".yaml", ""}


def test_no_file_names_a_machine_it_was_made_on() -> None:
    found = []
    for path in tracked_files():
        if path.suffix in TEXT:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if FORBIDDEN.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found


def test_versions_live_in_one_place() -> None:
    """constraints.txt pins every dependency exactly, with nothing local to one machine in it."""
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!-]+", line) for line in lines)
    names = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.findall(r'^  "([A-Za-z0-9-]+)[^"]*",', project, re.MULTILINE)
    assert set(wanted) - names == set()
    assert "torch==2.13.0" in lines
    assert "flwr==1.41.0" in lines


def test_no_file_in_the_tree_of_a_fab_is_larger_than_flower_takes() -> None:
    """A Flower app bundle holds at most 10 MB; ours are common, client and server."""
    total = sum(path.stat().st_size for path in SOURCES if path.relative_to(ROOT).parts[0] != "simulations")
    assert total < 10_000_000


def test_ci_checks_and_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert re.search(r"^make check$", script, re.MULTILINE)
    assert re.search(r"^make test$", script, re.MULTILINE)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
