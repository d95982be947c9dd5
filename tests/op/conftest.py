"""Both ways to paste on a CPU."""

import pytest
import torch


@pytest.fixture(params=["slices", "grid"], scope="module")
def way(request):
    """Hold every law for both ways `paste` works: on slices (CPU), and on the whole grid (GPU, compiled)."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "grid":
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
        yield request.param
