"""Fitted detectors that several files of tests look at."""

import pytest
from small_detector import KINDS, NAMES, make_fitted

from fastcutpaste.scoring.detector import Detector


@pytest.fixture(scope="module", params=KINDS, ids=NAMES)
def fitted(request: pytest.FixtureRequest) -> Detector:
    return make_fitted(request.param)


@pytest.fixture(scope="module")
def patches() -> Detector:
    return make_fitted()
