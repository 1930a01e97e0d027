"""Files of grid intensities: as spreadsheets save them, by the half hour, and what is refused."""

import os
from datetime import UTC, datetime

import pytest

from gateway.structured import ConfigError
from gateway.telemetry.intensity_table import read_intensity_table

DAY = 86_400


def unix(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def read(tmp_path, content):
    path = tmp_path / "grid.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_intensity_table(path)


def refusal(tmp_path, content):
    with pytest.raises(ConfigError, match=r"grid\.csv: ") as caught:
        read(tmp_path, content)
    return str(caught.value).partition("grid.csv: ")[2]


def test_by_the_hour_of_the_day_and_by_the_moment(tmp_path):
    text = "hour,grams_per_kwh\n8,100\n09,200\n\n2026-11-20T08:00, 50 \n2026-11-21T10:00+02:00,7\n"
    table = read(tmp_path, text)
    at_8 = unix("2026-11-20T08:59:59")
    assert table.find_grams_per_kwh(at_8) == 50.0
    assert table.find_grams_per_kwh(at_8 + DAY) == 7.0  # 10:00 at +02:00
    assert table.find_grams_per_kwh(at_8 + 2 * DAY) == 100.0
    assert table.find_grams_per_kwh(at_8 + 1) == 200.0
    assert table.find_grams_per_kwh(at_8 + 3601) is None


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffhour,grams_per_kwh\r\n0,300\r\n1,250.5\r\n",
        "hour;grams_per_kwh\n0;300\n1;250.5\n",
        "\ufeffhour;grams_per_kwh\r\n0;300\r\n1;250.5\r\n",
        "Hour\tgCO2/kWh\n0\t300\n1\t250.5",
        '"hour","grams_per_kwh"\r\n"0","300"\r\n"1","250.5"\r\n',
        "0,300\r1,250.5\r",
        "\n\n0,300\n\n1,250.5\n\n",
        "00:00,300\n01:00,250.5\n",
    ],
)
def test_it_is_taken_as_spreadsheets_save_it(tmp_path, content):
    table = read(tmp_path, content)
    assert table.find_grams_per_kwh(unix("2026-11-20T00:30")) == 300.0
    assert table.find_grams_per_kwh(unix("2026-11-20T01:30")) == 250.5


def test_half_hours_do_not_overwrite_one_another(tmp_path):
    table = read(tmp_path, "2026-11-20T08:00,100\n2026-11-20T08:30,300\n2026-11-20T09:00Z,200\n")
    for time, grams in (
        ("08:00", 100), ("08:29:59", 100), ("08:30", 300), ("08:59:59", 300), ("09:00", 200),
        ("09:59", 200), ("10:00", None), ("07:59:59", None),
    ):  # fmt: skip
        assert table.find_grams_per_kwh(unix(f"2026-11-20T{time}")) == grams
    daily = read(tmp_path, "8,100\n08:30,300\n")
    assert daily.find_grams_per_kwh(unix("2026-11-20T08:10")) == 100.0
    assert daily.find_grams_per_kwh(unix("2026-11-20T08:40")) == 300.0


def test_the_order_of_the_lines_does_not_matter(tmp_path):
    table = read(tmp_path, "2026-11-20T08:30,300\n2026-11-20T08:00,100\n")
    assert table.find_grams_per_kwh(unix("2026-11-20T08:10")) == 100.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0;212,5\n1;200\n", "line 1: '212,5' has a decimal comma; write 212.5"),
        ("hour,grams\n0,212,5\n", "line 2: '212,5' has a decimal comma; write 212.5"),
        ('0,"212,5"\n', "line 1: '212,5' has a decimal comma; write 212.5"),
        ("8,1\n8,2\n", "line 2: 8 is on line 1 too"),
        ("8,1\n08:00,1\n", "line 2: 08:00 is on line 1 too"),
        ("2026-11-20T08:00,1\n2026-11-20T10:00+02:00,1\n", "line 2: 2026-11-20T10:00+02:00 is on"),
        ("8,100\n24,100\n", "line 2: '24' is no time: write an hour (0 to 23)"),
        ("8,100\n-1,100\n", "line 2: '-1' is no time"),
        ("8,100\n20/11/2026 08:00,5\n", "line 2: '20/11/2026 08:00' is no time"),
        ("8,100\ntomorrow,5\n", "line 2: 'tomorrow' is no time"),
        ("8,100\nhour,5\n", "line 2: 'hour' is no time"),
        ("8,100\n9,5\n2026-13-01T00:00,5\n", "line 3: '2026-13-01T00:00' is no time"),
        ("8\n", "line 1: must be `hour,grams_per_kwh`, two cells"),
        ("8,100,30,4\n", "line 1: must be `hour,grams_per_kwh`, two cells"),
        ("8,-1\n", "line 1: '-1' is no number of grams"),
        ("8,nan\n", "line 1: 'nan' is no number of grams"),
        ("8,inf\n", "line 1: 'inf' is no number of grams"),
        ("8,1_000\n", "line 1: '1_000' is no number of grams"),
        ("8,٣\n", "line 1: '٣' is no number of grams"),
        ("8,\n", "line 1: '' is no number of grams"),
        ('8,"1\n', "line 1: unexpected end of data"),
        ("", "no hours in it"),
        ("hour,grams_per_kwh\n", "no hours in it"),
        ("\n\n", "no hours in it"),
        ("hour,grams\n8,1\n".encode("utf-16"), "not UTF-8 text; save it as CSV UTF-8"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_with_its_line(tmp_path, content, said):
    assert refusal(tmp_path, content).startswith(said)


def test_what_is_no_file_is_refused(tmp_path):
    path = tmp_path / "grid.csv"
    with pytest.raises(ConfigError, match="No such file"):
        read_intensity_table(path)
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is a pipe, not a regular file"):
        read_intensity_table(path)
