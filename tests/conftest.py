"""What holds for every test of the suite."""

import gc

import pytest


@pytest.fixture(autouse=True)
def _nothing_stays_frozen():
    # A gateway freezes what lives when it starts; in one process with hundreds of them that is
    # everything that ever was: two workers of the suite held 16 GB, and now some hundred MB each.
    yield
    gc.unfreeze()
