"""What a model's tokeniser makes of a prompt, learnt from the tokens that its answers report.

Rules: tokens = base + ratio x counted + per_dense_char x dense characters. Ridge regression about
the profile's own scale, of relative errors (a row weighs 1/(counted + 30)^2), with rows that
fade by a thousandth each. A row that is four times off either way is not a prompt as it was
counted (an image, a cached or a truncated one), and is left out.
"""

from typing import Any

from gateway.scheduling.features import TokenScale

_FADE = 0.999
_OFFSET = 30.0
_NOISE = 0.05
_PRIOR_DEVIATION = (15.0, 0.1, 0.2)
"""Of base, ratio and per_dense_char about the profile's."""
_FARTHEST = 4.0


class _Rows:
    """One model's faded sums: products of (1, counted, dense), and of these with the rest."""

    __slots__ = ("products", "residuals", "scale", "wanted")

    def __init__(self, wanted: TokenScale) -> None:
        self.wanted = wanted
        self.scale = wanted
        self.products = [0.0] * 6
        self.residuals = [0.0] * 3


class TokenLearner:
    """The scales of this process."""

    def __init__(self) -> None:
        self._models: dict[str, _Rows] = {}

    def observe(
        self, model: str, profile: TokenScale, counted: int, dense_chars: int, tokens: int
    ) -> None:
        """Take one prompt: what was counted, and the tokens that the model reported for it."""
        rows = self._models.get(model)
        if rows is None or rows.wanted != profile:
            rows = self._models[model] = _Rows(profile)
        told = rows.scale.estimate(counted, dense_chars)
        if counted < 1 or not told / _FARTHEST <= tokens <= told * _FARTHEST:
            return
        c, d = float(counted), float(dense_chars)
        left = tokens - profile.base - profile.ratio * c - profile.per_dense_char * d
        weight = 1.0 / (counted + _OFFSET) ** 2
        # Written out: in a loop it takes twice as long, and every answer pays for it.
        p0, p1, p2, p3, p4, p5 = rows.products
        rows.products = [
            _FADE * p0 + weight,
            _FADE * p1 + weight * c,
            _FADE * p2 + weight * d,
            _FADE * p3 + weight * (c * c),
            _FADE * p4 + weight * (c * d),
            _FADE * p5 + weight * (d * d),
        ]
        r0, r1, r2 = rows.residuals
        rows.residuals = [
            _FADE * r0 + weight * left,
            _FADE * r1 + weight * c * left,
            _FADE * r2 + weight * d * left,
        ]
        rows.scale = _solve(rows)

    def predict(self, model: str) -> TokenScale | None:
        """Return the scale learnt of a model; None where nothing has been."""
        rows = self._models.get(model)
        return rows.scale if rows is not None and any(rows.products) else None

    def to_state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            name: [list(rows.wanted), rows.products, rows.residuals]
            for name, rows in self._models.items()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `to_state` gave. Raises ValueError, TypeError or KeyError."""
        found: dict[str, _Rows] = {}
        for name, (wanted, products, residuals) in state.items():
            rows = found[str(name)] = _Rows(TokenScale(*map(float, wanted)))
            rows.products = [float(value) for value in products]
            rows.residuals = [float(value) for value in residuals]
            if (len(rows.products), len(rows.residuals)) != (6, 3):
                raise ValueError("not a token scale")
            rows.scale = _solve(rows)
        self._models = found


def _solve(rows: _Rows) -> TokenScale:
    """Return the profile's scale moved by the ridge solution (3 x 3, Cramer's rule)."""
    pa, pb, pc = ((_NOISE / deviation) ** 2 for deviation in _PRIOR_DEVIATION)
    n, c, d, cc, cd, dd = rows.products
    a11, a22, a33 = n + pa, cc + pb, dd + pc
    r1, r2, r3 = rows.residuals
    m1, m2, m3 = a22 * a33 - cd * cd, c * a33 - cd * d, c * cd - a22 * d
    whole = a11 * m1 - c * m2 + d * m3
    if whole <= 0.0:
        return rows.wanted
    base = (r1 * m1 - c * (r2 * a33 - cd * r3) + d * (r2 * cd - a22 * r3)) / whole
    ratio = (a11 * (r2 * a33 - cd * r3) - r1 * m2 + d * (c * r3 - r2 * d)) / whole
    dense = (a11 * (a22 * r3 - r2 * cd) - c * (c * r3 - r2 * d) + r1 * m3) / whole
    wanted = rows.wanted
    return TokenScale(
        max(0.01, wanted.ratio + ratio), wanted.per_dense_char + dense, wanted.base + base
    )
