"""The picture of the coefficients: each stands under what it multiplies in its own form."""

import msgspec
import pytest
from typer.testing import CliRunner

from calibration.cli import app
from gateway import profile
from gateway.scheduling.cost import RegressionForm

pytestmark = pytest.mark.slow


@pytest.fixture
def path(shipped, tmp_path):
    """A profile whose three models have three forms."""
    models = dict(shipped.models)
    forms = {
        "phi-3-mini": (RegressionForm.CONTEXT, [1e-5]),
        "mistral-7b": (RegressionForm.LOAD, [1e-5, 2e-3]),
    }
    for name, (form, more) in forms.items():
        cost = models[name].joules
        changed = msgspec.structs.replace(
            cost, form=form, coefficients=[*cost.coefficients, *more], covariance=None
        )
        models[name] = msgspec.structs.replace(models[name], joules=changed)
    found = tmp_path / "profile.json"
    profile.save_profile(models, found)
    return found


def test_terms_of_one_name_are_apart_where_they_multiply_different_things(path, tmp_path):
    out = tmp_path / "out"
    asked = ["plot", "--profile", path, "--out", out, "--only", "coefficients", "--format", "svg"]
    done = CliRunner().invoke(app, [str(one) for one in asked])
    assert done.exit_code == 0, done.output
    svg = (out / "coefficients.svg").read_text()
    for title in ("b3 × in × out", "b3 × out × (in + out/2)", "b4 × out/(1+running)"):
        assert svg.count(f"joules: {title}") == 1, title
    assert "seconds: b3" not in svg  # nobody's form has it
