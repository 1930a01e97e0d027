"""Who holds the beginning of a conversation, and how much of it is expected to be cached."""

import pytest

from gateway.scheduling.prefix_holders import PrefixHolders, PrefixMarks

PHI, OTHER = ("phi-3-mini", "phi-3-mini"), ("mistral-7b", "mistral-7b")


def turns(*names, leading=None, share=0.0):
    return PrefixMarks(tuple(name.encode() for name in names), leading, share)


def answer(
    holders, backend, marks, *, deployment=PHI, prompt=100, new=20, cached=0, held=0, at=0.0
):
    holders.observe_answer(
        deployment,
        backend,
        marks,
        prompt_tokens=prompt,
        completion_tokens=new,
        cached_tokens=cached,
        held_tokens=held,
        at_seconds=at,
    )


def test_nothing_is_held_until_a_cache_has_been_reported():
    holders = PrefixHolders()
    assert not holders.is_active
    assert holders.find_held_tokens(turns("a"), 0.0) == {}
    assert holders.estimate_cached(PHI, {PHI: {"x": 100}}) == {}
    answer(holders, "x", turns("a"))
    assert holders.is_active


def test_the_longest_beginning_that_is_known_counts():
    holders = PrefixHolders()
    answer(holders, "x", turns("a"), prompt=100, new=20)
    answer(holders, "x", turns("a", "b", "c"), prompt=300, new=30)
    answer(holders, "y", turns("a"), prompt=100, new=50)
    found = holders.find_held_tokens(turns("a", "b", "c", "d", "e"), 0.0)
    assert found == {PHI: {"x": 330, "y": 150}}


def test_another_conversation_or_deployment_holds_nothing_of_it():
    holders = PrefixHolders()
    answer(holders, "x", turns("a"))
    answer(holders, "x", turns("b"), deployment=OTHER)
    assert holders.find_held_tokens(turns("c", "a"), 0.0) == {PHI: {"x": 120}}
    assert holders.find_held_tokens(turns("c"), 0.0) == {}


def test_what_the_application_always_sends_is_held_by_whoever_served_it():
    holders = PrefixHolders()
    answer(holders, "x", turns("s", "a", leading=b"s", share=0.6), prompt=1000)
    answer(holders, "y", turns("s", "b", leading=b"s", share=0.5), prompt=1200)
    found = holders.find_held_tokens(turns("s", "c", leading=b"s", share=0.9), 0.0)
    assert found == {PHI: {"x": 600, "y": 600}}


def test_the_share_is_learnt_from_what_was_found():
    holders = PrefixHolders()
    answer(holders, "x", turns("a"))
    assert holders.estimate_cached(PHI, {PHI: {"x": 1000}}) == {"x": 500}
    for _ in range(50):
        answer(holders, "x", turns("a"), prompt=2000, held=1000, cached=900)
    assert holders.estimate_cached(PHI, {PHI: {"x": 1000}})["x"] == pytest.approx(900, abs=20)
    for _ in range(300):  # its cache was switched off
        answer(holders, "x", turns("a"), prompt=2000, held=1000, cached=0)
    assert holders.estimate_cached(PHI, {PHI: {"x": 1000}})["x"] < 50


def test_a_cut_prompt_does_not_count_against_the_share():
    holders = PrefixHolders()
    for _ in range(100):
        answer(holders, "x", turns("a"), prompt=400, held=1000, cached=400)
    assert holders.estimate_cached(PHI, {PHI: {"x": 1000}})["x"] > 950


def test_it_is_forgotten_after_half_an_hour():
    holders = PrefixHolders()
    answer(holders, "x", turns("a"), at=100.0)
    assert holders.find_held_tokens(turns("a"), 1900.0) == {PHI: {"x": 120}}
    assert holders.find_held_tokens(turns("a"), 1901.0) == {}


def test_it_is_bounded():
    holders = PrefixHolders(most_marks=3)
    for name in "abcd":
        answer(holders, "x", turns(name))
    known = [name for name in "abcd" if holders.find_held_tokens(turns(name), 0.0)]
    assert known == ["b", "c", "d"]
    answer(holders, "x", turns("b"))  # used again, it is the last to go
    answer(holders, "x", turns("e"))
    known = [name for name in "abcde" if holders.find_held_tokens(turns(name), 0.0)]
    assert known == ["b", "d", "e"]
    for number in range(1000):
        answer(holders, f"backend-{number}", turns("e"))
    assert len(holders.find_held_tokens(turns("e"), 0.0)[PHI]) <= 256
