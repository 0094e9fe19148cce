"""The notebook runs from its first cell to its last in a folder of its own, and says what its words promise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path("docs/notebook.ipynb")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook after a run; a cell that fails ends it."""
    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.read(NOTEBOOK, as_version=4)
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": scripts + os.pathsep + os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder / ".ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".jupyter"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client = NotebookClient(book, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    book.metadata["folder"] = str(folder)
    return book


def words(book: nbformat.NotebookNode, holds: str) -> str:
    """What the cell printed whose source holds these words."""
    (cell,) = (cell for cell in book.cells if cell.cell_type == "code" and holds in cell.source)
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_demo_s_figures_are_read_back_for_every_arm(ran: nbformat.NotebookNode) -> None:
    said = words(ran, "read_record(run")
    for arm in ("alone", "federated ", "federated-dp", "pooled"):
        assert arm in said
    assert "[" in said, "at least one figure with its interval"


def test_the_picture_is_drawn(ran: nbformat.NotebookNode) -> None:
    (cell,) = (cell for cell in ran.cells if "%matplotlib" in cell.source)
    assert any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_own_images_are_trained_on_at_both_sites(ran: nbformat.NotebookNode) -> None:
    said = words(ran, "consilium-sim run mine.toml")
    assert "north" in said
    assert "south" in said
    assert list(Path(ran.metadata["folder"], "runs").glob("mine-*/report.html"))


def test_the_hospital_s_archive_is_taken_in_and_what_was_refused_is_listed(
    ran: nbformat.NotebookNode,
) -> None:
    assert "images taken in" in words(ran, "consilium-site ingest")


def test_no_command_of_the_notebook_failed(ran: nbformat.NotebookNode) -> None:
    """A line that begins with `!` may fail without ending the notebook."""
    for cell in ran.cells:
        said = "".join(output.get("text", "") for output in cell.get("outputs", []))
        assert "Traceback" not in said
        assert "error" not in said.lower(), said
