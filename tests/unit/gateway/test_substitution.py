"""${NAME} in a config's strings: as a shell would, and nothing that only looks substituted."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.substitution import Substituted, SubstitutionError, substitute_variables

ENVIRON = {"KEY": "abc", "EMPTY": "", "LINE": "abc\r\n", "B": "b"}


def text(written, environ=ENVIRON):
    found = substitute_variables(written, environ)
    return found.text if isinstance(found, Substituted) else found


def refusal(written, environ=ENVIRON):
    with pytest.raises(SubstitutionError) as caught:
        substitute_variables(written, environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("${KEY}", "abc"),
        ("x${KEY}${B}y", "xabcby"),
        ("${EMPTY}", ""),
        ("${LINE}", "abc"),
        ("${NONE:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${NONE:-}", ""),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${KEY:-d}", "abc"),
        ("${NONE:-http://a:8000/v1}", "http://a:8000/v1"),
        ("${NONE:-${B}}", "b"),
        ("${NONE:-${NONE:-${NONE-e}}}!", "e!"),
        # A default that is not needed is not looked at.
        ("${KEY:-${NONE}}", "abc"),
        ("${KEY:?no}", "abc"),
        ("$$KEY", "$KEY"),
        ("$${KEY}", "${KEY}"),
        ("pa$$$$word", "pa$$word"),
        ("$", "$"),
        ("5$ and $5", "5$ and $5"),
        ("a}b{c", "a}b{c"),
        ("", ""),
    ],
)
def test_what_is_put_in(written, found):
    assert text(written) == found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${NONE}", "the environment variable NONE is not set"),
        ("${NONE:-${ALSO}}", "the environment variable ALSO is not set"),
        ("${NONE:?put the key there}", "the environment variable NONE is not set: put the key"),
        ("${EMPTY:?no}", "the environment variable EMPTY is empty: no"),
        ("${NONE?}", "the environment variable NONE is not set"),
        ("$KEY", "$KEY is not put in: write ${KEY}, or $$ for a dollar itself"),
        ("Bearer $NONE", "$NONE is not put in"),
        ("${}", "'${}' is no variable"),
        ("${KEY", "'${KEY' is no variable"),
        ("${NONE:-d", "'${NONE:-d' is no variable"),
        ("${KEY.x}", "'${KEY.x}' is no variable"),
        ("${KEY:+x}", "'${KEY:+x}' is no variable"),
        ("${ KEY }", "'${ KEY }' is no variable"),
        ("$(KEY)", "'$(KEY)' is not put in"),
        ("{{ .Values.key }}", "'{{ .Values.key }}' is not put in"),
        ("x-{{ key }}", "'{{ key }}' is not put in"),
        ("os.environ/KEY", "'os.environ/KEY' is not put in: a variable of the environment is ${"),
        ("env:KEY", "'env:KEY' is not put in"),
        ("%KEY%", "'%KEY%' is not put in"),
    ],
)
def test_what_is_refused(written, said):
    assert refusal(written).startswith(said)


@given(st.text(alphabet="aB1${}:-? "))
def test_whatever_is_written_is_put_in_or_refused(written):
    try:
        found = text(written, {"a": "1", "B": ""})
    except SubstitutionError:
        return
    assert "${a}" not in found.replace("$$", "") or "$$" in written


@given(st.text(alphabet="abc$ {}"))
def test_doubled_dollars_give_any_text_back(wanted):
    if "{{" not in wanted:
        assert text(wanted.replace("$", "$$")) == wanted


def test_a_value_is_put_in_as_it_is():
    assert text("${K}", {"K": "${KEY}$KEY{{x}}"}) == "${KEY}$KEY{{x}}"


def test_only_one_empty_default_by_itself_may_mean_nothing():
    def may_be_missing(written):
        return substitute_variables(written, ENVIRON).may_be_missing

    assert may_be_missing("${NONE:-}")
    assert may_be_missing("${NONE-}")
    assert not may_be_missing("${EMPTY}")
    assert not may_be_missing("${KEY:-}")
    assert not may_be_missing("${NONE:-}${NONE:-}")


def test_a_secret_of_a_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    assert text("${TOKEN}", {"TOKEN_FILE": str(path)}) == "s3cret"
    assert text("${TOKEN:-x}", {"TOKEN_FILE": str(path)}) == "s3cret"
    assert text("${TOKEN:-x}", {"TOKEN_FILE": ""}) == "x"
    assert "TOKEN and TOKEN_FILE are both set" in refusal(
        "${TOKEN}", {"TOKEN": "a", "TOKEN_FILE": str(path)}
    )
    path.write_bytes(b"\xff")
    assert refusal("${T}", {"T_FILE": str(path)}) == f"T_FILE: {path}: not UTF-8 text"
    path.unlink()
    assert refusal("${T}", {"T_FILE": str(path)}) == f"T_FILE: {path}: No such file or directory"
    os.mkfifo(path)
    assert refusal("${T}", {"T_FILE": str(path)}).endswith("is a pipe, not a regular file")
