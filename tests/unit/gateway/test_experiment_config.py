"""An experiment in gateway.yaml."""

import re

import pytest

from gateway.config import ConfigError, parse_config

EXPERIMENT = """
experiment:
  name: eco
  baseline: {policy: hybrid}
  block_minutes: 30
  seed: 7
"""


def test_an_experiment():
    text = "models: [{name: m, context: 99, backends: [{url: 'http://a:1'}]}]\n"
    found = parse_config(text + EXPERIMENT, "g.yaml", {}).experiment
    assert (found.name, found.baseline.policy, found.washout_seconds) == ("eco", "hybrid", 60.0)
    assert found.make_switchback().block_seconds == 1800.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{policy: hybrid}", "{}"), "give one of policy, model"),
        (("{policy: hybrid}", "{policy: hybrid, model: m}"), "give one of policy, model"),
        (("{policy: hybrid}", "{policy: best}"), "experiment.baseline.policy: 'best'"),
        (("{policy: hybrid}", "{model: other}"), "experiment.baseline.model: 'other'"),
        (("block_minutes: 30", "block_minutes: 1"), "the washout must be shorter than a block"),
        (("name: eco", "name: 'e c o'"), "letters, digits"),
    ],
)
def test_an_experiment_that_cannot_be(change, said):
    text = "models: [{name: m, context: 99, backends: [{url: 'http://a:1'}]}]\n"
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_config(text + EXPERIMENT.replace(*change), "g.yaml", {})
