"""A boundary in gateway.yaml."""

import pytest

from gateway.boundary_config import BoundaryConfig
from gateway.config import parse_config
from tests.unit.gateway.test_config import MODEL, refusal


def test_a_boundary():
    text = MODEL + "boundary: {host_watts: 350, pue: 1.3, price_per_kwh: 0.21, currency: EUR}\n"
    assert parse_config(text, "g.yaml", {}).boundary == BoundaryConfig(350.0, 1.3, 0.21, "EUR")


@pytest.mark.parametrize(
    ("member", "named"),
    [
        ("{pue: 0.9}", "boundary.pue"),
        ("{host_watts: -1}", "boundary.host_watts"),
        ("{price_per_kwh: 0.2}", "price_per_kwh and currency"),
        ("{currency: EUR}", "price_per_kwh and currency"),
        ("{price_per_kwh: 0.2, currency: euro}", "boundary.currency"),
        ("{watts: 3}", "watts"),
    ],
)
def test_a_boundary_that_cannot_be_is_refused(member, named):
    assert named in refusal(f"{MODEL}boundary: {member}\n")
