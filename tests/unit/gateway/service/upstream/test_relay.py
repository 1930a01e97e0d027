"""A unary answer: validated, renamed and explained, in raw bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import BackendStatusError, InvalidResponse
from gateway.service.upstream.relay import ModelRenamer, add_explanation, find_renamer, parse_unary

# A real answer of vLLM 0.32, shortened.
WHOLE = (
    b'{"id":"chatcmpl-9649b0f2da9dc591","object":"chat.completion","created":1795155016,'
    b'"model":"phi-3-mini","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":" TERcur priceice","refusal":null,"function_call":null},"logprobs":null,'
    b'"finish_reason":"length","token_ids":null}],"system_fingerprint":"vllm-0.32.0-30b2683a",'
    b'"usage":{"prompt_tokens":12,"total_tokens":16,"completion_tokens":4,'
    b'"prompt_tokens_details":{"cached_tokens":8,"multimodal_tokens":null}},'
    b'"metrics":{"time_to_first_token_ms":18.35,"speculative_decoding":null}}'
)


def test_a_whole_answer():
    usage = parse_unary(WHOLE).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (12, 4, 16)
    assert usage.prompt_tokens_details["cached_tokens"] == 8


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[{"text":"x"}],"usage":null}',
        b'{"object":"list","data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":2,"total_tokens":2}}',
        b'{"choices":[{}],"error":null}',
        b' {"choices":[{}],"future":{"x":[1]}} \n',
    ],
)
def test_other_whole_answers(body):
    parse_unary(body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html><body>502</body></html>", b"null", b"[]", b'"x"', b"{}", b'{"object":"list"}',
        WHOLE[:-1], WHOLE[:200], WHOLE + b"x", b'{"choices":[}', b"[" * 100_000, b"\xff\xfe",
        b'{"usage":{"prompt_tokens":1}}', b'{"choices":[]}', b'{"choices":null}', b'{"data":null}',
        b'{"data":[ ]}', b'{"data":{}}', b'{"choices":{}}',
        b'{"choices":[{"finish_reason":"abort"}]}',
        b'{"choices":[{"finish_reason":"stop"},{"finish_reason":"error"}]}',
    ],
)  # fmt: skip
def test_garbage_is_a_bad_answer(body):
    with pytest.raises(InvalidResponse):
        parse_unary(body)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"object":"error","message":"m","code":400}', 400),
        (b'{"object":"error","message":"m"}', 500),
        (b'{"detail":"Not Found"}', 500),
    ],
)
def test_other_errors_sent_with_status_200(body, status):
    with pytest.raises(BackendStatusError) as caught:
        parse_unary(body)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ('{"message":"m","type":"BadRequestError","param":null,"code":400}', 400),
        ('{"message":"m","code":404}', 404),
        ('{"message":"m","code":503}', 503),
        ('{"message":"m","code":200}', 500),
        ('{"message":"m","code":99999}', 500),
        ('{"message":"m","code":"context_length_exceeded"}', 500),
        ('{"message":"m","code":null}', 500),
        ('{"message":"m"}', 500),
        ('"out of memory"', 500),
        ("[1]", 500),
        ('{"message":"m","code":[400]}', 500),
    ],
)
def test_an_error_sent_with_status_200_is_refused_with_its_own(error, status):
    body = f'{{"error":{error}}}'.encode()
    with pytest.raises(BackendStatusError) as caught:
        parse_unary(body)
    assert (caught.value.status, caught.value.body) == (status, body)


# --- renaming ----------------------------------------------------------------------------------

RENAME = ModelRenamer("microsoft/Phi-3-mini-4k-instruct", "phi-3-mini")
SERVED = WHOLE.replace(b'"model":"phi-3-mini"', b'"model":"microsoft/Phi-3-mini-4k-instruct"')


def test_the_model_member_is_renamed_and_nothing_else():
    assert RENAME(SERVED) == WHOLE
    spaced = SERVED.replace(b'"model":', b'"model": ')
    assert json.loads(RENAME(spaced)) == json.loads(WHOLE)


def test_every_event_of_a_block_is_renamed():
    event = b'data: {"id":"x","model":"microsoft/Phi-3-mini-4k-instruct","choices":[]}\n\n'
    assert RENAME(event * 3).count(b'"model":"phi-3-mini"') == 3
    assert b"microsoft" not in RENAME(event * 3)


def test_an_answer_is_renamed_only_if_it_must_be():
    assert find_renamer("phi-3-mini", "phi-3-mini") is None
    assert find_renamer(None, "phi-3-mini") is None
    served = parse_unary(SERVED).model
    assert served == "microsoft/Phi-3-mini-4k-instruct"
    assert find_renamer(served, "phi-3-mini")(SERVED) == WHOLE


def test_another_servers_name_stays():
    other = SERVED.replace(b"Phi-3", b"Phi-4")
    assert RENAME(other) == other


@given(st.text(max_size=30), st.booleans())
def test_no_text_of_the_answer_is_renamed(text, plain):
    needle = '"model":"microsoft/Phi-3-mini-4k-instruct"'
    content = f"{text}{needle}{text}"
    answer = {"model": "microsoft/Phi-3-mini-4k-instruct", "choices": [{"text": content}]}
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps(answer, ensure_ascii=plain, separators=separators).encode()
        assert json.loads(RENAME(body)) == {"model": "phi-3-mini", "choices": [{"text": content}]}


@given(st.text('ab"\\/é{', min_size=1, max_size=8), st.text("ab/-", min_size=1, max_size=8))
def test_names_of_any_letters(served, model):
    body = json.dumps({"model": served, "choices": []}, separators=(",", ":"), ensure_ascii=False)
    assert json.loads(ModelRenamer(served, model)(body.encode())) == {"model": model, "choices": []}


# --- explaining --------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [b"", b"\n", b" \r\n\t"])
def test_an_explanation_is_one_more_member(after):
    body = add_explanation(WHOLE + after, b'{"score":0.25}')
    assert body == WHOLE[:-1] + b',"joulegate":{"score":0.25}}'
    assert json.loads(body) == {**json.loads(WHOLE), "joulegate": {"score": 0.25}}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(), max_size=4))
def test_an_explained_answer_keeps_everything(more):
    whole = {**more, "choices": [more]}
    for indent in (None, 2):
        body = json.dumps(whole, indent=indent).encode()
        assert json.loads(add_explanation(body, b'{"a":[1]}')) == {**whole, "joulegate": {"a": [1]}}
