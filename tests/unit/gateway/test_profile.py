"""The profile file: taken whole or refused whole, saved atomically."""

import hashlib
import json

import pytest
from msgspec.structs import replace

from gateway.profile import ProfileError, load_profile, parse_profile, save_profile
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.features import OutputModel
from gateway.watched_profile import WatchedProfileFile


def tree(**changes):
    """One good profile as plain data."""
    regression = {"form": "additive", "coefficients": [1.0, 2.0, 3.0]}
    model = {"accuracy": {"default": 0.5}, "seconds": regression, "joules": dict(regression)}
    return {"version": 1, "models": {"m": {**model, **changes}}}


def text(value):
    return json.dumps(value).encode()


def refusal(value):
    raw = value if isinstance(value, bytes) else text(value)
    with pytest.raises(ProfileError, match=r"^p\.json: ") as caught:
        parse_profile(raw, "p.json")
    return str(caught.value)


def test_a_small_profile_has_every_default():
    profile = parse_profile(text(tree()), "p.json")
    model = profile.get_model("m")
    assert model.to_output_model() == OutputModel(1.028, 44.12)
    assert model.tokens.ratio == 1.0
    assert model.joules.to_cost_function(CostQuantity.JOULES) == CostFunction(
        CostQuantity.JOULES, RegressionForm.ADDITIVE, (1.0, 2.0, 3.0)
    )


def test_the_version_names_the_content():
    raw = text(tree())
    assert parse_profile(raw, "a").version == hashlib.sha256(raw).hexdigest()[:12]
    assert parse_profile(raw, "a").version != parse_profile(raw + b"\n", "a").version


def test_its_own_output_line_is_used():
    profile = parse_profile(text(tree(output={"slope": 0.5, "intercept": 9})), "p")
    assert profile.get_model("m").to_output_model() == OutputModel(0.5, 9.0)


def test_a_missing_model_is_named_beside_those_there_are():
    profile = parse_profile(text({"version": 1, "models": {"b": tree()["models"]["m"]}}), "p")
    with pytest.raises(ProfileError, match=r"no model 'a' in the profile \(it has: b\)"):
        profile.get_model("a")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "not a profile"),
        (b"[]", "not a profile"),
        (b"{", "not a profile"),
        (b"\xff\xfe", "not a profile"),
        (b'{"version": 1, "models": {"m\xfc": {}}}', "codec can't decode"),
        (b"[" * 100_000, "not a profile"),
        ({"models": {}}, "no version"),
        ({"version": "one", "models": {}}, "not a profile"),
        ({"version": 2, "models": {"m": {"a": "future"}}}, "version 2 is not known here"),
        ({"version": 0, "models": {}}, "version 0 is not known here"),
        ({"version": 1}, "missing required field `models`"),
        ({"version": 1, "models": {}}, "length >= 1 - at `$.models`"),
        ({**tree(), "extra": 1}, "unknown field `extra`"),
        (tree(color="red"), "unknown field `color` - at `$.models[...]`"),
        (tree(accuracy={"default": 1.01}), "<= 1.0 - at `$.models[...].accuracy.default`"),
        (tree(accuracy={"default": -0.1}), ">= 0.0 - at `$.models[...].accuracy.default`"),
        (tree(accuracy={}), "missing required field `default`"),
        (tree(seconds=None), "got `null` - at `$.models[...].seconds`"),
        (tree(seconds={"form": "cubic", "coefficients": [1]}), "Invalid enum value 'cubic'"),
        (tree(seconds={"form": "additive"}), "missing required field `coefficients`"),
        (tree(tokens={"ratio": 0}), "> 0.0 - at `$.models[...].tokens.ratio`"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(value, said):
    assert said in refusal(value)


@pytest.mark.parametrize("missing", ["accuracy", "seconds", "joules"])
def test_what_a_model_must_have(missing):
    value = tree()
    del value["models"]["m"][missing]
    assert f"missing required field `{missing}`" in refusal(value)


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [("additive", 3, 4), ("interaction", 4, 3), ("load", 5, 6), ("load", 5, 0)],
)
def test_coefficients_must_fit_the_form(form, right, wrong):
    good = {"form": form, "coefficients": [1.0] * right}
    assert (
        len(parse_profile(text(tree(joules=good)), "p").get_model("m").joules.coefficients) == right
    )
    said = refusal(tree(joules={"form": form, "coefficients": [1.0] * wrong}))
    assert f"coefficients: form '{form}' takes {right}, not {wrong}" in said
    assert "$.models[...].joules" in said


@pytest.mark.parametrize(
    "covariance", [[], [[1.0, 1.0], [1.0, 1.0]], [[1.0] * 3, [1.0] * 3, [1.0]]]
)
def test_a_covariance_must_be_square_and_fit(covariance):
    bad = {"form": "additive", "coefficients": [1.0] * 3, "covariance": covariance}
    assert "covariance: must be 3 x 3" in refusal(tree(seconds=bad))


@pytest.mark.parametrize("huge", [1e13, -1e13, 1e300])
def test_coefficients_that_no_cost_has_are_refused(huge):
    bad = {"form": "additive", "coefficients": [1.0, huge, 1.0]}
    said = refusal(tree(seconds=bad))
    assert "coefficients: " in said
    assert "$.models[...].seconds" in said


def test_numbers_json_does_not_have_are_refused():
    raw = text(tree()).replace(b"3.0", b"NaN", 1)
    assert "p.json" in refusal(raw)
    assert "p.json" in refusal(text(tree()).replace(b"3.0", b"1e999", 1))


@pytest.mark.parametrize(
    "line", [{"slope": 1e308, "intercept": 0}, {"slope": 0, "intercept": 1e308}]
)
def test_an_output_line_that_no_model_has_is_refused_or_harmless(line):
    try:
        output = parse_profile(text(tree(output=line)), "p").get_model("m").to_output_model()
    except ProfileError:
        return
    assert output.predict_output_tokens(1000, 64) == 64


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ProfileError, match="No such file"):
        load_profile(tmp_path / "none.json")
    with pytest.raises(ProfileError, match="Is a directory"):
        load_profile(tmp_path)


def test_what_is_saved_is_loaded(tmp_path, shipped):
    path = tmp_path / "profile.json"
    save_profile(shipped.models, path)
    assert load_profile(path).models == shipped.models
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_bad_model_leaves_the_old_file(tmp_path, shipped):
    path = tmp_path / "profile.json"
    save_profile(shipped.models, path)
    before = path.read_bytes()
    good = shipped.get_model("phi-3-mini")
    bad = [
        {},
        {"m": replace(good, accuracy=replace(good.accuracy, default=1.5))},
        {"m": replace(good, tokens=replace(good.tokens, ratio=-1.0))},
    ]
    for models in bad:
        with pytest.raises(ProfileError):
            save_profile(models, path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_midway_leaves_nothing_behind(tmp_path, shipped):
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OSError, match="taken"):
        save_profile(shipped.models, target)
    assert list(tmp_path.iterdir()) == [target]


def test_a_save_replaces_the_file_and_does_not_write_into_it(tmp_path, shipped):
    path = tmp_path / "profile.json"
    path.write_bytes(text(tree()))
    with path.open("rb") as reader:
        save_profile(shipped.models, path)
        assert reader.read() == text(tree())
    assert set(load_profile(path).models) == {"phi-3-mini", "mistral-7b", "falcon-7b"}


def test_learnt_models_replace_the_profile_s_and_no_others(tmp_path):
    path, learnt = tmp_path / "profile.json", tmp_path / "learnt.json"
    both = tree()
    both["models"]["n"] = both["models"]["m"]
    path.write_bytes(text(both))
    watched = WatchedProfileFile(path, learnt)
    before = watched.current_profile
    assert before.version == load_profile(path).version
    learnt.write_bytes(text(tree(accuracy={"default": 0.7})))
    assert watched.has_changed()
    after = watched.read_profile()
    assert {name: one.accuracy.default for name, one in after.models.items()} == {
        "m": 0.7,
        "n": 0.5,
    }
    assert after.version not in {before.version, load_profile(learnt).version}
    assert after.version == load_profile(path, learnt).version
    assert not watched.has_changed()
    path.write_bytes(text(tree()) + b" ")
    assert watched.has_changed()
    assert set(watched.read_profile().models) == {"m"}
    learnt.write_bytes(b"{}")
    with pytest.raises(ProfileError, match=r"learnt\.json"):
        watched.read_profile()
    learnt.unlink()
    assert watched.has_changed()
    assert watched.read_profile().get_model("m").accuracy.default == 0.5


def test_a_regression_of_nan_cannot_even_be_made(shipped):
    good = shipped.get_model("phi-3-mini").seconds
    with pytest.raises(ValueError, match="coefficients: "):
        replace(good, coefficients=[float("nan")] * 3)
