"""Ids that tell whose answer it is."""

import pytest

from gateway.service.upstream.sent_ids import SentIds


def test_another_requests_answer_is_known_by_its_number():
    ids = SentIds()
    first, second = ids.number(), ids.number()
    assert first != second
    mine, others = (f"chatcmpl-{ids.name('req_1', number)}" for number in (second, first))
    assert not ids.is_anothers(mine, second)
    assert ids.is_anothers(others, second)
    assert ids.is_anothers(mine, first)


@pytest.mark.parametrize(
    "answered",
    ["", "c", "chatcmpl-", "chatcmpl-xyz", "chatcmpl-9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d",
     "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", "chatcmpl-req_1--1", "chatcmpl- 1"],
)  # fmt: skip
def test_an_id_that_holds_no_number_of_ours_says_nothing(answered):
    ids = SentIds()
    assert not ids.is_anothers(answered, ids.number())


def test_numbers_beyond_those_given_out_are_not_ours():
    ids = SentIds()
    number = ids.number()
    assert not ids.is_anothers(f"chatcmpl-a-{number + 1:x}", number)
    assert not ids.is_anothers(f"chatcmpl-a-{number - 1:x}", number)
