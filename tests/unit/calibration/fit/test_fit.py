"""What is fitted, what is refused, and what is said of rows that carry a fit badly."""

import numpy as np
import pandas as pd
import pytest

from calibration.fit import cost as cost_fit
from calibration.fit import model as fit
from calibration.stats import design
from calibration.tables.columns import BadInput
from calibration.tables.rows import MeasuredRows, SourceFile
from gateway.scheduling.cost import RegressionForm


def as_rows(frame, model="m"):
    full = {
        "model": model, "method": "", "hardware": "", "engine": "", "at": "", "reason": "",
        "file": 0, "row": np.arange(len(frame)), "tiktoken_in": np.nan, "cached_tokens": np.nan,
        "running": np.nan,
    }  # fmt: skip
    return MeasuredRows(
        pd.DataFrame({**full, **frame.to_dict("series")}), [SourceFile("x", "0", len(frame))]
    )


def made(size=300, noise=0.02, seed=0, **other):
    """Rows of a plain additive model over lengths that vary well."""
    rng = np.random.default_rng(seed)
    i, o = rng.integers(8, 2000, size), rng.integers(8, 1000, size)
    seconds = (0.1 + 0.001 * i + 0.02 * o) * (1 + noise * rng.standard_normal(size))
    joules = (20 + 0.05 * i + 2.0 * o) * (1 + noise * rng.standard_normal(size))
    columns = {"tokens_in": i, "tokens_out": o, "seconds": seconds, "joules": joules}
    return pd.DataFrame({**columns, **other})


def test_load_is_skipped_with_a_reason_where_running_never_varies():
    fitted = fit.fit_model(as_rows(made(running=0)), "m")
    tried = {one.form: one for one in fitted.seconds.trials}
    assert "running never varies (0 in every row)" in tried[RegressionForm.LOAD].refused
    with pytest.raises(BadInput, match="load: running never varies"):
        fit.fit_model(as_rows(made(running=0)), "m", form=RegressionForm.LOAD)


def test_the_simpler_form_is_kept_within_noise():
    forms = [
        fit.fit_model(as_rows(made(seed=seed)), "m").seconds.form is RegressionForm.ADDITIVE
        for seed in range(40)
    ]
    assert sum(forms) >= 34


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (made(5), "too few rows: 5 usable, at least 12 needed"),
        (made(tokens_out=64), "tokens_out is 64 in every row"),
        (made(seconds=1.0), "the same value in every row"),
        (made().assign(tokens_out=lambda f: 2 * f["tokens_in"] + 1), "vary tokens in and tokens"),
    ],
)
def test_rows_that_cannot_carry_a_fit_are_refused(frame, match):
    with pytest.raises(BadInput, match=match):
        fit.fit_model(as_rows(frame), "m", form=RegressionForm.ADDITIVE)


def test_lengths_that_hardly_vary_are_flagged_with_what_to_do():
    rng = np.random.default_rng(1)
    frame = made(tokens_out=rng.integers(45, 51, 300), joules=rng.uniform(100, 400, 300))
    flags = "\n".join(fit.fit_model(as_rows(frame), "m").flags)
    assert "answer length hardly varies (90% of rows have 45 to 50" in flags
    assert "measure a grid of lengths" in flags
    assert "joules: R2 is 0.0" in flags
    assert "b2 (per token out) could be zero" in flags


def test_costs_below_zero_in_the_range_are_flagged_and_marked():
    frame = made().assign(seconds=lambda f: 0.02 * f["tokens_out"] - 0.005 * f["tokens_in"])
    fitted = fit.fit_model(as_rows(frame[frame["seconds"] > 0]), "m", form=RegressionForm.ADDITIVE)
    assert "below zero inside the fitted range" in fitted.seconds.negative_reason
    assert any("no profile can be written" in flag for flag in fitted.flags)
    assert any("a token in costs less than nothing" in flag for flag in fitted.flags)


def test_what_the_joules_are_worth_is_said():
    method = ["exclusive"] * 200 + ["estimated"] * 100
    frame = made(method=method)
    frame.loc[:9, "joules"] = np.nan
    frame.loc[10, "joules"] = 0.0
    fitted = fit.fit_model(as_rows(frame), "m")
    assert (fitted.seconds.fitted.n, fitted.joules.fitted.n) == (300, 190)
    flags = "\n".join(fitted.flags)
    assert "joules of 100 rows are coarse or estimated" in flags
    assert "joules are missing in 10 of 300 rows" in flags
    assert "1 rows have 0 joules" in flags


def test_mixed_hardware_a_warm_cache_and_unfitted_load_are_flagged():
    rng = np.random.default_rng(6)
    frame = made(hardware=["H200", "A100"] * 150, cached_tokens=80, running=rng.integers(0, 9, 300))
    flags = "\n".join(fit.fit_model(as_rows(frame), "m", form=RegressionForm.ADDITIVE).flags)
    assert "2 kinds of hardware in one fit (A100, H200)" in flags
    assert "came from the prefix cache" in flags
    assert "does not know load" in flags


def test_without_joules_only_seconds_are_fitted():
    fitted = fit.fit_model(as_rows(made(joules=np.nan)), "m")
    assert fitted.joules is None
    assert len(fitted.cost_fits) == 1


def test_lengths_line_and_token_ratio():
    frame = made().assign(tiktoken_in=lambda f: f["tokens_in"] / 1.25)
    answered = fit.fit_model(as_rows(frame), "m")
    assert answered.ratio.value == pytest.approx(1.25)
    assert answered.output.unsuited_reason is None
    rng = np.random.default_rng(2)
    designed = made(tokens_out=rng.choice([16, 64, 256], 300)).assign(
        seconds=lambda f: 0.1 + 0.001 * f["tokens_in"] + 0.02 * f["tokens_out"]
    )
    asked = fit.fit_model(as_rows(designed), "m")
    assert "look asked for" in asked.output.unsuited_reason
    assert "no tiktoken count" in asked.ratio


def test_a_form_that_prices_tokens_below_nothing_does_not_take_over():
    corner = design.RangeCorner(1, 1, 0, 1.0, -0.1, 0.1)
    sound = design.RangeCorner(1, 1, 0, 1.0, 0.1, 0.1)
    assert not cost_fit.FormTrial(RegressionForm.INTERACTION, corners=(corner, sound)).is_plausible
    assert cost_fit.FormTrial(RegressionForm.INTERACTION, corners=(sound,)).is_plausible


def grid_and_prompts(prompts=300):
    """Rows of a designed grid, then answers of 0.2 i + 40 tokens to prompts of ratio 1.25."""
    rng = np.random.default_rng(3)
    grid = made(200, tokens_out=rng.choice([16, 64, 256, 1024], 200), cell="512x64@1")
    asked = made(prompts, seed=4, cell="prompts@4").assign(
        tokens_out=lambda f: np.round(0.2 * f["tokens_in"] + 40 + 30 * rng.random(prompts))
    )
    both = pd.concat([grid, asked], ignore_index=True)
    per_token = np.where(both["cell"] == "prompts@4", 1.25, 1.0)
    return both.assign(tiktoken_in=both["tokens_in"] / per_token)


def test_rows_of_a_grid_tell_nothing_of_answers_or_of_the_tokeniser():
    frame = grid_and_prompts()
    mixed = fit.fit_model(as_rows(frame), "m")
    apart = fit.fit_model(as_rows(frame[frame["cell"] == "prompts@4"]), "m")
    assert mixed.output == apart.output
    assert mixed.output.n == 300
    assert mixed.output.unsuited_reason is None
    assert mixed.output.slope == pytest.approx(0.2, rel=0.02)
    assert mixed.ratio == apart.ratio
    assert mixed.ratio.value == pytest.approx(1.25)
    assert mixed.seconds.fitted.n == 500
    assert fit.fit_pooled_output(as_rows(frame)) == mixed.output


def test_a_grid_alone_has_no_line_however_many_lengths_it_asked_for():
    frame = made(cell="512x64@1").assign(tiktoken_in=lambda f: f["tokens_in"])
    fitted = fit.fit_model(as_rows(frame), "m")
    assert "look asked for" in fitted.output.unsuited_reason
    assert fitted.ratio.n == 300
    few = fit.fit_model(as_rows(grid_and_prompts(5)), "m")
    assert "too few rows: 5" in few.output
    elsewhere = fit.fit_model(as_rows(made(cell="c")), "m")
    assert elsewhere.output.unsuited_reason is None


def queued(wait):
    """Rows alone, and as many under load: short answers whose prompts wait for one another."""
    busy = made(1500, seed=7, running=63).query("tokens_out < 200")
    seconds = busy["seconds"] + 0.001 * wait * busy["tokens_in"] * busy["running"]
    return pd.concat([made(running=0), busy.assign(seconds=seconds)], ignore_index=True)


def test_rows_under_load_that_no_form_follows_are_named_and_how_to_leave_them_out():
    fitted = fit.fit_model(as_rows(queued(2.0)), "m")
    assert "--where concurrency=1" in fitted.seconds.negative_reason
    assert any("rows under load bend it" in flag for flag in fitted.flags)
    frame = queued(2.0)
    alone = fit.fit_model(as_rows(frame[frame["running"] == 0]), "m")
    assert alone.seconds.negative_reason is None
    assert not any("bend" in flag for flag in alone.flags + fit.fit_model(
        as_rows(queued(0.0)), "m").flags)  # fmt: skip
