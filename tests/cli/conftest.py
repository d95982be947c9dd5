"""What commands are given."""

from pathlib import Path

import pytest
from command_line import write_category


@pytest.fixture(scope="session")
def category(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category of an MVTec folder, which no test may change."""
    return write_category(tmp_path_factory.mktemp("data") / "tile")
