"""What several files of tests look at, and how much of the machine they take."""

import os
from pathlib import Path

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, as here by what follows

from command_line import write_category
from small_detector import KINDS, NAMES, make_fitted

from fastcutpaste.scoring.detector import Detector


def pytest_configure() -> None:
    """Keep each worker to one thread: there is a worker for each core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=KINDS, ids=NAMES)
def fitted(request: pytest.FixtureRequest) -> Detector:
    return make_fitted(request.param)


@pytest.fixture(scope="module")
def patches() -> Detector:
    return make_fitted()


@pytest.fixture(scope="session")
def category(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category of an MVTec folder, which no test may change."""
    return write_category(tmp_path_factory.mktemp("data") / "tile")
