"""`Retry-After` in every form that servers send, and in none."""

import time
from email.utils import formatdate

import pytest

from backends.retry_after import parse_retry_after, round_up_seconds

DATE = "Fri, 20 Nov 2026 07:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("7.5", 7.5),
        (" 2 ", 2.0),
        ("0", 0.0),
        ("-3", 0.0),
        ("3600", 60.0),
        ("inf", 60.0),
        ("1e400", 60.0),
        (None, None),
        ("", None),
        ("nan", None),
        ("soon", None),
        ("\u00b2", None),
        ("Fri, 99 Nov 2026 07:00:00 GMT", None),
    ],
)
def test_seconds(value, seconds):
    assert parse_retry_after(value) == seconds


@pytest.mark.parametrize(
    "value",
    ["Fri, 20 Nov 2026 07:00:40 GMT", "Friday, 20-Nov-26 07:00:40 GMT", "Fri Nov 20 07:00:40 2026"],
)
def test_a_date_counts_from_the_answers_own(value):
    # However wrong our clock is against the server's.
    assert parse_retry_after(value, DATE) == 40.0


def test_a_date_without_one_of_the_answer_counts_from_now():
    wait = parse_retry_after(formatdate(time.time() + 40, usegmt=True))
    assert 30.0 < wait <= 40.0
    assert parse_retry_after(DATE, "nonsense") is not None


def test_a_date_in_the_past_is_now():
    assert parse_retry_after("Fri, 20 Nov 2026 06:59:00 GMT", DATE) == 0.0


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 1), (0.2, 1), (7.0, 7), (7.5, 8), (60.0, 60)])
def test_what_a_client_is_told(seconds, told):
    assert round_up_seconds(seconds) == told
