"""The notebooks run as they stand, and are kept small, with the outputs of a run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 250_000  # bytes


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_what_it_said_before(path):
    kept = nbformat.read(path, as_version=4)
    cells = [cell for cell in kept.cells if cell.cell_type == "code"]
    before = [kinds(cell) for cell in cells]
    assert all(cell.execution_count for cell in cells), "outputs are those of a run from top to bottom"
    NotebookClient(kept, timeout=300, kernel_name="python3").execute()
    assert [kinds(cell) for cell in cells] == before
    assert "image/png" in {kind for cell in cells for kind in kinds(cell)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small(path):
    assert path.stat().st_size <= LARGEST


def kinds(cell):
    """Give what kinds of outputs a cell has; numbers differ from one machine to the next."""
    return sorted(kind for each in cell.outputs for kind in each.get("data", {each.get("name"): None}))
