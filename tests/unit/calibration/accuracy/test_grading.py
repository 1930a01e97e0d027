"""Which answer a text gives, by kind, and whether it is right."""

import pytest

from calibration.accuracy.grading import (
    QuestionKind,
    extract_answer,
    find_majority_answer,
    find_option_letters,
    is_same_answer,
    parse_gold_answer,
)

FOUR = "Which one?\nA. 8\nB. 2\nC. 24\nD. 120"

CHOICES = [
    ("The answer is B.", "B"),
    ("The answer is (C)", "C"),
    ("the correct answer is **D**, as shown", "D"),
    ("Answer: A", "A"),
    ("Answer:\n\nB", "B"),
    ("The answer is A because it is prime.", "A"),
    ("The answer is a good question. I pick C", "C"),
    ("Final answer: \\boxed{B}", "B"),
    ("$\\boxed{\\text{D}}$", "D"),
    ("First I thought the answer is A. But no: the answer is C.", "C"),
    ("B", "B"),
    ("b", "B"),
    ("(D)", "D"),
    ("C. 24", "C"),
    ("B) 2 is right, not A", "B"),
    ("Neither A nor B can be, so it must be D", "D"),
    ("So we choose option C", "C"),
    ("A person who waits gets C, said B", "B"),
    ("A person who waits", None),
    ("I do not know.", None),
    ("E", None),
    ("", None),
    ("**Answer**: B. Option A is wrong.", "B"),
    ("**Answer:** C. Option A is wrong.", "C"),
    ("The **answer** is D, not A", "D"),
    ("B\n\nExplanation: A is wrong", "B"),
    ("**B**\nA and D are wrong", "B"),
    ("answer is b", "B"),
    ("The answer is (c), since a is wrong.", "C"),
    ("The answer is e.g. C", "C"),
    ("The answer is a good guess", None),
    ("The answer isb", None),
    ("<think>The answer is A</think>The answer is B", "B"),
    ("<think>The answer is A and then I ran out", None),
]


@pytest.mark.parametrize(("text", "answer"), CHOICES)
def test_a_choice_is_found(text, answer):
    assert extract_answer(QuestionKind.CHOICE, text, FOUR) == answer


@pytest.mark.parametrize(
    ("prompt", "known"),
    [
        (FOUR, "ABCD"),
        ("Is it?\n(A) yes\n(B) no", "AB"),
        ("No options here. I. e. none", "ABCDE"),
        ("\n".join(f"{letter}) x" for letter in "ABCDEFGHIJ"), "ABCDEFGHIJ"),
    ],
)
def test_letters_are_those_that_the_prompt_lists(prompt, known):
    assert find_option_letters(prompt) == known


NUMBERS = [
    ("16 - 7 = 9 eggs, 9 * 2 = 18 dollars\n#### 18", "18"),
    ("#### 1,234", "1234"),
    ("#### -5", "-5"),
    ("The answer is $42.50.", "85/2"),
    ("The answer is 12 apples and 3 pears, so 15 in all", "12"),
    ("So there are 3, then 7", "7"),
    ("about 1,000,000 people", "1000000"),
    ("The result is \\boxed{3/4}", "3/4"),
    ("it rose by 50%", "50"),
    ("it costs 0.1 or .5", "1/2"),
    ("minus: −3", "-3"),
    ("5-3 is 2.", "2"),
    ("1.5e3", "1500"),
    ("none", None),
    ("1/0", None),
    ("GPT4 says v2.x", None),
    ("Answer: none; but 8", "8"),
    ("The answer is 5 + 7 = 12.", "12"),
    ("The answer is 5 + 7 = 10 + 2 = 12, not 13", "12"),
    ("The answer is 12, since 5 + 8 = 13 is too much", "12"),
    ("The answer is 12 = 5 + 7", "12"),
    ("The answer is 12. 5 + 8 = 13", "12"),
    ("The answer is 2 * (3 + 4) = 14", "14"),
    ("Answer: x = $1,200.50 = 120050 cents", "2401/2"),
    ("#### 5 - 7 = -2", "-2"),
    ("\\boxed{\\frac{1}{2}}", "1/2"),
    ("\\boxed{-\\dfrac{3}{4}}", "-3/4"),
    ("\\boxed{2\\frac12}", "5/2"),
    ("The answer is $\\frac{10}{4}$.", "5/2"),
    ("Answer:\nStep 1: 3 eggs. So 12", "12"),
]


@pytest.mark.parametrize(("text", "answer"), NUMBERS)
def test_a_number_is_found(text, answer):
    assert extract_answer(QuestionKind.NUMBER, text) == answer


EXACTS = [
    ("Paris", "paris"),
    ("The answer is Paris.", "paris"),
    ("Thinking of France…\nAnswer: the Eiffel Tower", "eiffel tower"),
    ("Answer:\nParis", "paris"),
    ("Answer:\nParis\nIt is in France.", "paris"),
    ("**Answer:**\n\n**Paris**", "paris"),
    ("**Answer**: Paris", "paris"),
    ("Paris\nAnswer:", "paris answer"),
    ("  New-York! ", "new york"),
    ("ﬁne", "fine"),
    ("", None),
    ("!!!", "!!!"),
]


@pytest.mark.parametrize(("text", "answer"), EXACTS)
def test_an_exact_answer_is_found(text, answer):
    assert extract_answer(QuestionKind.EXACT, text) == answer


@pytest.mark.parametrize(
    ("kind", "answer", "right"),
    [
        (QuestionKind.CHOICE, "(b)", "B"),
        (QuestionKind.CHOICE, "Berlin", None),
        (QuestionKind.NUMBER, "He has 5.\n#### 5", "5"),
        (QuestionKind.NUMBER, "five", None),
        (QuestionKind.EXACT, "The Sun", "sun"),
        (QuestionKind.EXACT, "", None),
    ],
)
def test_a_gold_answer_is_brought_to_the_same_form(kind, answer, right):
    assert parse_gold_answer(kind, answer) == right


def test_numbers_are_compared_as_numbers():
    assert is_same_answer(
        QuestionKind.NUMBER, "1/3", extract_answer(QuestionKind.NUMBER, "0.3333333") or ""
    )
    assert not is_same_answer(QuestionKind.NUMBER, "0", "1/1000")
    assert not is_same_answer(QuestionKind.NUMBER, None, "1")
    assert is_same_answer(QuestionKind.CHOICE, "A", "A")


def test_the_majority_is_by_answer_and_the_earliest_of_equals():
    assert find_majority_answer(QuestionKind.CHOICE, ["A", "B", "B", None]) == "B"
    assert find_majority_answer(QuestionKind.CHOICE, ["C", "A"]) == "C"
    assert find_majority_answer(QuestionKind.NUMBER, ["1/2", "3", "3"]) == "3"
    assert find_majority_answer(QuestionKind.CHOICE, [None, None]) is None
