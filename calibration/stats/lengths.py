"""Lengths of prompts and answers: tokens out on tokens in, and the model's tokens per tiktoken's.

Both are what the gateway uses to guess a request's lengths before it runs. Rows of a designed grid
tell neither: their answers are as long as was asked for, and their prompts are random words. Where
the rows say which they are (column `cell` of `joulegate profile`: 512x64@1, or prompts@1), only
those of prompts count.
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

    `unsuited` says why a profile must not take the line, None where it may.
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
    """Leave out the rows of a designed grid; all stay where none says that it is one."""
    if "cell" not in rows:
        return rows
    return rows[
        ~rows["cell"].str.fullmatch(_GRID_CELL_PATTERN).to_numpy(dtype=bool, na_value=False)
    ]


def fit_output_length(rows: pd.DataFrame) -> OutputLengthFit | str:
    """Fit tokens out on tokens in by OLS, or say why that cannot be."""
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
    """Estimate the token ratio, or say why that cannot be.

    The interval is that of a ratio estimator, sd(y - R x) / (sqrt(n) mean(x)) (Cochran, Sampling
    Techniques, 1977, section 2.11). Rows of a grid stand in where there are too few of prompts.
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
