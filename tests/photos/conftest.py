"""The photos that the tests of a store read."""

import pytest
from noise_photos import make_photos


@pytest.fixture
def made(tmp_path):
    return make_photos(tmp_path)
