"""One ordinary least squares fit: coefficients, robust errors, and diagnostics of its rows.

Errors are heteroscedasticity-robust: HC3 (MacKinnon and White, 1985), which divides each squared
residual by (1 - leverage)². The spread of costs grows with their size, so the classical errors
would be wrong; in small samples HC3 is conservative, and HC1 too narrow.

Intervals use Student's t with the effective degrees of freedom of each coefficient's error
(Satterthwaite, 1946; for robust errors Bell and McCaffrey, 2002, and Imbens and Kolesar, 2016). In
a grid of lengths the few most expensive rows determine a coefficient: with n - k degrees of freedom
a 95% interval of the interaction term covered the truth 91% of the time at two rows a cell, with
these 97%, and both 95% at fifteen (2,000 simulated grids each).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from statsmodels.regression.linear_model import OLS

from calibration.arrays import Floats

MAX_CONDITION_NUMBER = 1e7
"""Above it (columns scaled to unit length) the terms are not identifiable."""
_FULL_LEVERAGE = 1.0 - 1e-9
_OUTLIER_SD = 6.0
_ROWS_PER_BIN = 50
_MAX_BINS = 20
_ROUNDING_TOLERANCE = 1e-20
_MIN_RELATIVE_SPREAD = 1e-9
_REWEIGHTED = 3
_LEAST_SIZE = 0.2
_LEAST_QUANTILE = 0.01


class SingularDesignError(ValueError):
    """The regressors are collinear, or there are no more rows than coefficients."""


@dataclass(frozen=True, slots=True)
class ResidualDiagnostics:
    """Residuals and leverage of the rows.

    `outlier_rows`: rows whose residual is over 6 times the root mean square among rows of similar
    predicted cost (the spread grows with the cost; taken about zero, so that a bias of the form
    common to all of them does not count as outliers), `worst_sd` is the largest such ratio;
    leverage is the hat matrix's diagonal; `leverage_rows` counts rows above 3 k/n; `cook_max` is
    the largest Cook's distance.
    `worst_row` and `highest_leverage_row` are indices into the fitted arrays.
    """

    outlier_rows: int
    worst_row: int
    worst_sd: float
    leverage_max: float
    leverage_rows: int
    cook_max: float
    highest_leverage_row: int


@dataclass(frozen=True, slots=True)
class LeastSquaresFit:
    """A fit of y on X; arrays follow the columns of X. `rmse` is sqrt(SSR/n), in y's unit."""

    coefficients: Floats
    low: Floats
    high: Floats
    standard_errors: Floats
    degrees_of_freedom: Floats
    """Degrees of freedom behind each interval."""
    covariance: Floats
    robust: str
    n: int
    r2: float
    rmse: float
    condition_number: float
    diagnostics: ResidualDiagnostics
    residuals: Floats
    sizes: Floats | None = None
    """What each row's error was counted in, where the loss was relative."""


def fit_relative(x: Floats, y: Floats) -> LeastSquaresFit:
    """Fit, each row's error counted in its own predicted size. Raises SingularDesignError.

    The sizes are the observed costs at first, then three times the predictions so far, which are
    free of a row's own noise (iteratively reweighted least squares). A prediction below a fifth of
    what was observed counts as that fifth: it may be negative.
    """
    positive = y[y > 0.0]
    if not len(positive):
        raise SingularDesignError("no cost is above zero")
    observed = np.maximum(y, float(np.quantile(positive, _LEAST_QUANTILE)))
    found = fit_least_squares(x, y, observed)
    for _ in range(_REWEIGHTED):
        found = fit_least_squares(x, y, np.maximum(y - found.residuals, _LEAST_SIZE * observed))
    return found


def fit_least_squares(x: Floats, y: Floats, sizes: Floats | None = None) -> LeastSquaresFit:
    """Fit y (n) on x (n x k, its first column ones) with 95% intervals. Raises SingularDesignError.

    With `sizes` (n, positive) each row's error counts as a share of its size.
    """
    raw_x, raw_y = x, y
    if sizes is not None:
        x, y = x / sizes[:, None], y / sizes
    n, k = x.shape
    if n <= k:
        raise SingularDesignError(f"{n} rows for {k} coefficients")
    # Columns of similar size: products of long prompts and answers would lose digits.
    scale = np.sqrt(np.mean(x**2, axis=0))
    if not np.all(scale > 0.0):
        raise SingularDesignError("a regressor is zero in every row")
    scaled = x / scale
    condition = float(np.linalg.cond(scaled))
    if not condition < MAX_CONDITION_NUMBER:
        raise SingularDesignError("the regressors cannot be told apart")
    result = OLS(y, scaled).fit()
    influence = scaled @ result.normalized_cov_params  # of each row on each coefficient
    leverage = np.einsum("ij,ij->i", influence, scaled)
    robust = "HC3" if leverage.max() < _FULL_LEVERAGE else "HC1"
    solid = result.get_robustcov_results(robust, use_t=True)
    errors = np.asarray(solid.bse) / scale
    coefficients = np.asarray(result.params) / scale
    residuals = np.asarray(result.resid, dtype=float)
    plain = raw_y - raw_x @ coefficients
    total = float(np.sum((raw_y - raw_y.mean()) ** 2))
    weights = influence / (1.0 - leverage[:, None]) if robust == "HC3" else influence
    freedom = _estimate_degrees_of_freedom(weights**2, y - residuals, n - k)
    reach = stdtrit(freedom, 0.975) * errors
    return LeastSquaresFit(
        coefficients=coefficients,
        low=coefficients - reach,
        high=coefficients + reach,
        standard_errors=errors,
        degrees_of_freedom=freedom,
        covariance=np.asarray(solid.cov_params()) / np.outer(scale, scale),
        robust=robust,
        n=n,
        r2=1.0 - float(plain @ plain) / total if total > 0.0 else 0.0,
        rmse=float(np.sqrt(np.mean(plain**2))),
        condition_number=condition,
        diagnostics=_diagnose_residuals(residuals, y - residuals, leverage, k),
        residuals=plain,
        sizes=sizes,
    )


def _estimate_degrees_of_freedom(weights: Floats, predicted: Floats, most: int) -> Floats:
    """Degrees of freedom of sum(weight_i e_i²), per column of `weights` (n x k).

    Satterthwaite's (sum w v)² / sum (w v)², v being the variance of the residual: taken as equal,
    and as proportional to the squared prediction (noise in per cent); the smaller is returned.
    """
    found: Floats = np.full(weights.shape[1], float(most))
    for variance in (np.ones(len(predicted)), predicted**2):
        parts = weights * variance[:, None]
        squares = np.maximum((parts**2).sum(axis=0), np.finfo(float).tiny)
        found = np.minimum(found, parts.sum(axis=0) ** 2 / squares)
    return np.clip(found, 1.0, float(most))


def _diagnose_residuals(
    residuals: Floats, predicted: Floats, leverage: Floats, k: int
) -> ResidualDiagnostics:
    n = len(residuals)
    variance = float(residuals @ residuals) / (n - k)
    room = np.maximum(1.0 - leverage, 1e-12)
    # An exact fit leaves only rounding error: none of its rows is an outlier.
    exact = variance <= _ROUNDING_TOLERANCE * float(np.mean(predicted**2))
    cook = np.zeros(n) if exact else residuals**2 * leverage / (room**2 * k * variance)
    far = np.zeros(n)
    if not exact:
        order = np.argsort(predicted, kind="stable")
        for part in np.array_split(order, max(1, min(_MAX_BINS, n // _ROWS_PER_BIN))):
            spread = float(np.sqrt(np.mean(residuals[part] ** 2)))
            least = _MIN_RELATIVE_SPREAD * float(np.sqrt(np.mean(predicted[part] ** 2)))
            far[part] = np.abs(residuals[part]) / max(spread, least, np.finfo(float).tiny)
    worst = int(np.argmax(far))
    return ResidualDiagnostics(
        outlier_rows=int(np.count_nonzero(far > _OUTLIER_SD)),
        worst_row=worst,
        worst_sd=float(far[worst]),
        leverage_max=float(leverage.max()),
        leverage_rows=int(np.count_nonzero(leverage > 3.0 * k / n)),
        cook_max=float(cook.max()),
        highest_leverage_row=int(np.argmax(leverage)),
    )


def compute_binned_bias(predicted: Floats, y: Floats, parts: int = 5) -> list[float]:
    """Return the relative bias, sum(residual)/sum(y), of each fifth of the rows by predicted cost.

    A form that lacks a term is biased in some range, however high its R2. A fifth whose
    mean residual is within 3 standard errors of zero counts as 0.
    """
    order = np.argsort(predicted, kind="stable")
    off = []
    for part in np.array_split(order, parts):
        residual = y[part] - predicted[part]
        error = float(residual.std()) / max(len(part), 1) ** 0.5
        total = float(y[part].sum())
        clear = total > 0.0 and abs(float(residual.mean())) > 3.0 * error
        off.append(float(residual.sum()) / total if clear else 0.0)
    return off
