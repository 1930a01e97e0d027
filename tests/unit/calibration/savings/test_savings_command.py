"""`joulegate savings` as it is called: the table, the JSON, and what it will not say."""

import json
from urllib.parse import parse_qs

import httpx
import pytest
import respx
from typer.testing import CliRunner

from calibration.cli import app
from calibration.recalibrate.prometheus import Series
from calibration.savings import command
from calibration.savings.arms import COUNTERS, INFO
from calibration.savings.savings import ArmComparison
from tests.unit.calibration.savings.test_savings import BLOCK, BLOCKS, START, serve

URL = "http://prom:9090"
END = START + BLOCKS * BLOCK
LABELS = {
    "experiment": "e", "seed": "3", "block_seconds": "1200", "washout_seconds": "60",
    "baseline": "hybrid",
}  # fmt: skip


@pytest.fixture
def series():
    """The counters of a run whose treatment saves a fifth; they may be changed."""
    return serve(3, 0.2)[1]


@pytest.fixture
def served(series):
    """A Prometheus that has them; `infos` may be changed."""
    infos = [LABELS]

    def answer(request):
        (query,) = parse_qs(request.content.decode())["query"]
        name = query.partition("{")[0].partition("[")[0]
        if name == INFO:
            result = [{"metric": one, "values": [(START, "1")]} for one in infos]
        else:
            (counter,) = [key for key, metric in COUNTERS.items() if metric == name]
            assert 'experiment="e"' in query
            result = [{"metric": one.metric, "values": one.values} for one in series[counter]]
        data = {"resultType": "matrix", "result": result}
        return httpx.Response(200, json={"status": "success", "data": data})

    with respx.mock:
        respx.post(f"{URL}/api/v1/query").mock(side_effect=answer)
        yield infos


def told(capsys, **options):
    code = command.run(
        command.SavingsOptions(URL, window="14h", as_json=True, **options), clock=lambda: END
    )
    out, errors = capsys.readouterr()
    return code, json.loads(out) if out else None, errors


@pytest.mark.usefixtures("served")
def test_a_fifth_saved(capsys):
    code, report, _ = told(capsys)
    assert code == 0
    assert report["verdict"] == "energy was saved, per token and per answer"
    assert (report["pairs"], report["baseline"]) == (20, "hybrid")
    figures = {one["name"]: one for one in report["figures"]}
    for name in ("joules_per_1000_tokens", "joules_per_answer"):
        one = figures[name]
        assert one["low"] < -0.2 < one["high"] < 0.0
    assert set(figures) >= {"seconds_per_answer", "accuracy", "request_joules_per_answer"}


@pytest.mark.usefixtures("served")
def test_the_table(capsys):
    options = command.SavingsOptions(URL, window="14h")
    assert command.run(options, clock=lambda: END) == 0
    out, _ = capsys.readouterr()
    assert "20 pairs of blocks of 20 minutes" in out
    assert "joules per 1000 tokens" in out
    assert "energy was saved, per token and per answer" in out


def estimate_some(series, share):
    """Let a share of the treatment's request joules be predictions."""
    (joules,) = (
        one
        for one in series["joules"]
        if (one.metric["kind"], one.metric["arm"]) == ("request", "treatment")
    )
    labels = {"experiment": "e", "arm": "treatment"}
    values = [(at, repr(share * float(value))) for at, value in joules.values]
    series["estimated"].append(Series(labels, values))


@pytest.mark.parametrize("share", [1.0, 0.3, 0.11])
def test_predictions_prove_nothing(series, served, capsys, share):
    estimate_some(series, share)
    assert served
    code, report, _ = told(capsys)
    assert code == 0
    assert report["estimated_share"] == pytest.approx(share)
    assert report["verdict"].startswith(f"nothing to compare: {share:.0%} of an arm's request")
    assert {one["name"] for one in report["figures"]} == {
        "seconds_per_answer", "tokens_per_answer", "accuracy",
    }  # fmt: skip


def test_a_few_predictions_are_warned_of(series, served, capsys):
    estimate_some(series, 0.02)
    assert served
    _, report, _ = told(capsys)
    assert report["warnings"] == ["up to 2.0% of an arm's request joules were predicted"]
    assert report["verdict"] == "energy was saved, per token and per answer"


@pytest.mark.usefixtures("served")
def test_a_short_window_tells_nothing(capsys):
    options = command.SavingsOptions(URL, window="2h", as_json=True)
    assert command.run(options, clock=lambda: END) == 0
    report = json.loads(capsys.readouterr()[0])
    assert report["verdict"] == "too few blocks to tell: at least 6 pairs are needed"
    assert all(one["low"] is None for one in report["figures"])


def test_no_experiment(served, capsys):
    served.clear()
    code, _, errors = told(capsys)
    assert code == 1
    assert "no experiment in the window" in errors


def test_two_experiments(served, capsys):
    served.append({**LABELS, "experiment": "f"})
    code, _, errors = told(capsys)
    assert code == 2
    assert "which of e, f? --experiment NAME" in errors
    assert told(capsys, experiment="e")[0] == 0


def test_gateways_that_disagree(served, capsys):
    served.append({**LABELS, "seed": "4"})
    code, _, errors = told(capsys)
    assert code == 1
    assert "gateways disagree" in errors


def test_options_that_cannot_be_used():
    result = CliRunner().invoke(app, ["savings", "--prometheus", URL, "--window", "6"])
    assert result.exit_code == 2
    assert "is no duration" in result.stderr


@pytest.mark.parametrize(
    ("tokens", "answers", "said"),
    [
        ((-0.3, -0.1), (-0.2, -0.1), "energy was saved, per token and per answer"),
        ((0.1, 0.3), (0.1, 0.2), "the treatment spends more, per token and per answer"),
        ((-0.3, 0.1), (-0.2, 0.1), "the data cannot tell whether energy was saved"),
        ((0.1, 0.3), (-0.2, -0.1), "less by one measure and more by the other"),
        ((-0.1, 0.3), (-0.2, -0.1), "less joules per answer; by the other the data cannot tell"),
        ((None, None), (None, None), "too few blocks to tell"),
    ],
)
def test_the_verdict(tokens, answers, said):
    figures = [
        ArmComparison("joules_per_1000_tokens", "J", 1.0, 1.0, *tokens),
        ArmComparison("joules_per_answer", "J", 1.0, 1.0, *answers),
    ]
    assert command.judge(figures).startswith(said)


def test_nothing_to_compare():
    assert command.judge([]).startswith("nothing to compare")
