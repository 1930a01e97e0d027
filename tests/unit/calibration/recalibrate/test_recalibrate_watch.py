"""`joulegate recalibrate --watch`: one round after another."""

import json

from calibration.recalibrate import command as recalibrate_command
from gateway import profile
from tests.unit.calibration.recalibrate import recalibrating
from tests.unit.calibration.recalibrate.recalibrating import (
    URL,
    served,
)

live, server = recalibrating.live, recalibrating.server


def options(live, **more):
    return recalibrate_command.RecalibrateOptions(
        prometheus=URL, profile=live, out=live, watch="15m", **more
    )


def test_watching_goes_on_after_a_bad_round_until_it_is_interrupted(server, live, capsys):
    now, slept = [1000.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds
        if len(slept) == 1:
            server.add(served()[0])
        if len(slept) == 3:
            raise KeyboardInterrupt

    def clock():
        now[0] += 2.0
        return now[0]

    assert recalibrate_command.run(options(live, as_json=True), clock=clock, sleep=sleep) == 0
    assert slept == [898.0] * 3
    out, errors = capsys.readouterr()
    rounds = [json.loads(line) for line in out.splitlines()]
    assert "no series" in errors
    assert [one["models"][0]["adopted"] for one in rounds] == [
        True,
        False,
    ]  # the second finds that the first holds
    assert rounds[1]["parent_version"] == rounds[0]["profile_version"]
    assert rounds[0]["profile_version"] == profile.load_profile(live).version
    assert rounds[1]["profile_version"] is None
