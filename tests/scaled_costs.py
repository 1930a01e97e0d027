"""Profiles whose costs are off by a factor throughout."""

from msgspec.structs import replace

from gateway.profile import CostRegression


def scale_cost(cost: CostRegression, factor: float) -> CostRegression:
    """Return the same cost so many times as high; its covariance is not known."""
    return replace(cost, coefficients=[factor * b for b in cost.coefficients], covariance=None)


def scale_model(model, factor, **changes):
    """The same model with both costs so many times as high."""
    scaled = {
        "seconds": scale_cost(model.seconds, factor),
        "joules": scale_cost(model.joules, factor),
    }
    return replace(model, **scaled, **changes)
