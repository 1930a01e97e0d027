"""What is known of requests that go by a model's name: their answers count where they get any."""

import json

import pytest

from gateway.config import LimitsConfig
from gateway.service.answer_caps import hold_to_caps
from gateway.service.request.body import decode_members
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.named_endpoints import NAMED
from gateway.service.request.named_request import estimate_named_features

ENDPOINTS = {endpoint.value: endpoint for endpoint in NAMED}


def ask(kind, **body):
    members = decode_members(json.dumps(body).encode())
    return InferenceRequest(ENDPOINTS[kind], members, "m", False, wants_usage=True)


@pytest.mark.parametrize(
    ("kind", "body", "asked", "answers", "prompts"),
    [
        ("chat_batch", {"messages": [[], [], []], "max_tokens": 50}, 50, 1, 3),
        ("chat_batch", {"messages": [[]], "max_completion_tokens": 5, "max_tokens": 9}, 5, 1, 1),
        ("chat_batch", {"messages": "no list"}, None, 1, 1),
        ("cohere_chat", {"messages": [], "max_tokens": "40"}, 40, 1, 1),
        ("generate_tokens", {"sampling_params": {"max_tokens": 30, "n": 2}}, 30, 2, 1),
        ("generate_tokens", {"sampling_params": {}}, None, 1, 1),
        ("generate_tokens", {"sampling_params": 7}, None, 1, 1),
        ("generate_tokens", {}, None, 1, 1),
        ("rerank", {"query": "a", "max_tokens": 50}, 1, 1, 1),
    ],
)
def test_answers_of_text_count_as_they_are_asked_for(kind, body, asked, answers, prompts):
    found = estimate_named_features(ask(kind, **body))
    assert (found.asked_tokens_out, found.answers, found.prompts) == (asked, answers, prompts)
    assert found.lenient


@pytest.mark.parametrize(("given", "sent"), [({}, {"max_tokens": 9}), (7, 7), (None, None)])
def test_a_cap_mends_nothing_that_cannot_be_read(given, sent):
    request = ask("generate_tokens", sampling_params=given)
    hold_to_caps(request, LimitsConfig(max_output_tokens=9))
    assert json.loads(bytes(request.members["sampling_params"])) == sent
