"""Lengths of prompts and answers: tokens out on tokens in, and model tokens per tiktoken token.

The gateway estimates a request's lengths by both. Rows of a designed grid are no basis for either:
their tokens out are prescribed, and their prompts are random words. Where the rows state their
cell (column `cell` of `joulegate profile`: 512x64@1, or prompts@1), only those of prompts are used.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from calibration.stats import ols
from calibration.stats.intervals import Z_95

_MIN_ROWS = 12
_MIN_DISTINCT_LENGTHS = 10
_GRID_CELL_PATTERN = r"[1-9]\d*x\d+@\d+"


@dataclass(frozen=True, slots=True)
class OutputLengthFit:
    """tokens out = slope x tokens in + intercept, with 95% intervals.

    `unsuited_reason` says why the line must not enter a profile; None: it may.
    """

    slope: float
    slope_interval: tuple[float, float]
    intercept: float
    intercept_interval: tuple[float, float]
    r2: float
    n: int
    unsuited_reason: str | None = None


@dataclass(frozen=True, slots=True)
class TokenRatioFit:
    """The model's own prompt tokens per tiktoken token: sum over sum, with a 95% interval."""

    value: float
    interval: tuple[float, float]
    n: int


def select_prompt_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows of a designed grid; rows that state no cell are all kept."""
    if "cell" not in rows:
        return rows
    return rows[
        ~rows["cell"].str.fullmatch(_GRID_CELL_PATTERN).to_numpy(dtype=bool, na_value=False)
    ]


def fit_output_length(rows: pd.DataFrame) -> OutputLengthFit | str:
    """Fit tokens out on tokens in by OLS, or return why it cannot be fitted."""
    answered = select_prompt_rows(rows)
    forced = len(rows) > 0 and answered.empty
    if not forced:
        rows = answered
    if len(rows) < _MIN_ROWS:
        return f"too few rows: {len(rows)}, at least {_MIN_ROWS} needed"
    i = rows["tokens_in"].to_numpy(dtype=float)
    try:
        fitted = ols.fit_least_squares(
            np.column_stack([np.ones(len(i)), i]), rows["tokens_out"].to_numpy(float)
        )
    except ols.SingularDesignError:
        return "tokens_in never varies"
    lengths = rows["tokens_out"].nunique()
    unsuited = None
    if forced or lengths < _MIN_DISTINCT_LENGTHS:
        # A designed grid asks for its lengths; how long answers get by themselves is not in it.
        unsuited = f"only {lengths} answer lengths: they look asked for, not answered"
    return OutputLengthFit(
        slope=float(fitted.coefficients[1]),
        slope_interval=(float(fitted.low[1]), float(fitted.high[1])),
        intercept=float(fitted.coefficients[0]),
        intercept_interval=(float(fitted.low[0]), float(fitted.high[0])),
        r2=fitted.r2,
        n=fitted.n,
        unsuited_reason=unsuited,
    )


def fit_token_ratio(rows: pd.DataFrame) -> TokenRatioFit | str:
    """Estimate the token ratio, or return why it cannot be estimated.

    The interval is that of a ratio estimator, sd(y - R x) / (sqrt(n) mean(x)) (Cochran, Sampling
    Techniques, 1977, section 2.11). With too few rows of prompts, the grid's are used.
    """
    known = rows[rows["tiktoken_in"] > 0]
    answered = select_prompt_rows(known)
    if len(answered) >= _MIN_ROWS:
        known = answered
    if len(known) < _MIN_ROWS:
        return "no tiktoken count in the rows (--col tiktoken_in=NAME, or --col prompt=NAME)"
    x = known["tiktoken_in"].to_numpy(dtype=float)
    y = known["tokens_in"].to_numpy(dtype=float)
    value = float(y.sum() / x.sum())
    error = float((y - value * x).std(ddof=1)) / (len(x) ** 0.5 * float(x.mean()))
    return TokenRatioFit(value, (value - Z_95 * error, value + Z_95 * error), len(x))
