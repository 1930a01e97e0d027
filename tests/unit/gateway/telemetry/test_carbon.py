"""Joules to grams of CO2e: fixed, by the hour, reloaded, refused."""

import logging
import os
from datetime import UTC, datetime

import pytest

from gateway import config
from gateway.structured import ConfigError
from gateway.telemetry.carbon import CarbonIntensity, read_intensity_table

KWH = 3.6e6
AT_8 = datetime(2026, 11, 20, 8, 59, 59, tzinfo=UTC).timestamp()
AT_9 = AT_8 + 1


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def written(path, text, mtime_ns):
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def test_a_fixed_intensity():
    assert CarbonIntensity(400.0).to_grams(KWH / 4, AT_8) == 100.0
    assert CarbonIntensity(0.0).to_grams(KWH, AT_8) == 0.0


def test_by_the_hour_of_the_day_and_by_the_moment(tmp_path):
    text = "hour,grams_per_kwh\n8,100\n09,200\n\n2026-11-20T08:00, 50 \n2026-11-21T10:00+02:00,7\n"
    carbon = CarbonIntensity(path=written(tmp_path / "grid.csv", text, 1))
    day = 86_400
    assert carbon.to_grams(KWH, AT_8) == 50.0
    assert carbon.to_grams(KWH, AT_8 + day) == 7.0  # 10:00 at +02:00
    assert carbon.to_grams(KWH, AT_8 + 2 * day) == 100.0
    assert carbon.to_grams(KWH, AT_9) == 200.0
    assert carbon.to_grams(KWH, AT_9 + 3600) is None


def test_a_changed_file_is_read_again_within_the_minute(tmp_path, caplog):
    clock = Clock()
    path = written(tmp_path / "grid.csv", "8,100", 1)
    carbon = CarbonIntensity(path=path, clock=clock)
    written(path, "8,300", 2)
    clock.now = 59.0
    assert carbon.to_grams(KWH, AT_8) == 100.0
    clock.now = 60.0
    assert carbon.to_grams(KWH, AT_8) == 300.0
    written(path, "8,abc", 3)
    clock.now = 120.0
    with caplog.at_level(logging.ERROR):
        assert carbon.to_grams(KWH, AT_8) == 300.0
    assert "line 1" in caplog.text
    path.unlink()
    clock.now = 180.0
    assert carbon.to_grams(KWH, AT_8) == 300.0
    written(path, "8,500", 4)
    clock.now = 240.0
    assert carbon.to_grams(KWH, AT_8) == 500.0


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("24,100", 2), ("-1,100", 2), ("8", 2), ("8,100,3", 2), ("8,-1", 2), ("8,nan", 2),
        ("8,inf", 2), ("8,", 2), ("tomorrow,5", 2), ("9,5\n2026-13-01T00:00,5", 3), ("hour,5", 2),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, number):
    path = written(tmp_path / "grid.csv", f"8,100\n{line}\n", 1)
    with pytest.raises(ConfigError, match=rf"grid\.csv: line {number}: "):
        read_intensity_table(path)


@pytest.mark.parametrize("content", [b"", b"hour,grams_per_kwh\n", b"\n\n", b"\xff\xfe8,1"])
def test_a_file_without_hours_is_refused(tmp_path, content):
    path = tmp_path / "grid.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="grid"):
        CarbonIntensity(path=path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        CarbonIntensity(path=tmp_path / "grid.csv")


@pytest.mark.parametrize(
    "carbon",
    [
        "{grams_per_kwh: -1}",
        "{grams_per_kwh: 10001}",
        "{grams_per_kwh: lots}",
        "{grams_per_kwh: 100, file: grid.csv}",
        "{grams: 100}",
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path, carbon):
    path = tmp_path / "gateway.yaml"
    models = "models: [{name: m, context: 10, backends: [{url: 'http://a'}]}]"
    path.write_text(f"{models}\ncarbon: {carbon}\n")
    with pytest.raises(ConfigError, match="carbon"):
        config.load_config(path)


def test_the_files_path_starts_at_the_configs_folder(tmp_path):
    path = tmp_path / "gateway.yaml"
    models = "models: [{name: m, context: 10, backends: [{url: 'http://a'}]}]"
    path.write_text(f"{models}\ncarbon: {{file: grid.csv}}\n")
    assert config.load_config(path).carbon.file == str(tmp_path / "grid.csv")
