"""What several unit tests need; none of it opens a socket."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gateway import profile
from tests.shipped_counter import load_shipped_counter

# The machine may be busy: a property has no deadline.
settings.register_profile(
    "unit",
    deadline=None,
    max_examples=int(os.environ.get("JOULEGATE_EXAMPLES", "50")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shipped():
    return profile.load_profile(None)


@pytest.fixture(scope="session")
def counter():
    return load_shipped_counter()


@pytest.fixture(scope="session")
def shared_data():
    """Where the raw profiling rows are; they are not copied into the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the raw profiling rows are not at {SHARED_DATA}")
    return SHARED_DATA
