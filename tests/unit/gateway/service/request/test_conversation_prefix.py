"""Marks of a conversation's beginnings: the same for the same words, and of bounded cost."""

import json

from msgspec import Raw

from gateway.service.request.conversation import measure_conversation
from gateway.service.request.conversation_prefix import ConversationTexts, mark_prefixes
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from tests.shipped_counter import load_shipped_counter

KEY = b"k" * 32
COUNTER = load_shipped_counter()


def read(*messages):
    """The texts of a chat, as the gateway reads it."""
    raw = Raw(json.dumps(messages).encode())
    ask = InferenceRequest(EndpointKind.CHAT, {"messages": raw}, "auto", False, False)
    measure_conversation(ask, COUNTER)
    return ask.texts


def marks(*messages, application="app", key=KEY):
    return mark_prefixes(read(*messages), application, key)


SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Why is the sky blue?"}
ANSWER = {"role": "assistant", "content": "Scattering."}
NEXT = {"role": "user", "content": "And red at night?"}


def test_the_next_turn_finds_the_mark_of_the_one_before():
    before, after = marks(SYSTEM, FIRST), marks(SYSTEM, FIRST, ANSWER, NEXT)
    assert after.turns[1] == before.turns[-1]
    assert len(set(after.turns)) == 4


def test_parts_read_as_the_same_text():
    parts = {"role": "user", "content": [{"type": "text", "text": FIRST["content"]}]}
    assert marks(SYSTEM, FIRST).turns == marks(SYSTEM, parts).turns


def test_other_words_another_application_or_another_key_make_another_mark():
    found = {
        marks(SYSTEM, FIRST).turns[-1],
        marks(SYSTEM, NEXT).turns[-1],
        marks(SYSTEM, FIRST, application="other").turns[-1],
        marks(SYSTEM, FIRST, key=b"j" * 32).turns[-1],
        marks({"role": "user", "content": "Be brief." + FIRST["content"]}).turns[-1],
    }
    assert len(found) == 5


def test_the_ends_and_the_length_of_a_long_message_tell_it():
    long = "x" * 100_000
    texts = [long, long + "y", "y" + long, long[:-1]]
    found = {mark_prefixes(ConversationTexts([text], [1]), "", KEY).turns[-1] for text in texts}
    assert len(found) == 4


def test_the_applications_own_words_are_a_beginning_too():
    found = marks(SYSTEM, FIRST)
    assert found.leading == b"app"
    assert found.leading_share == len(SYSTEM["content"]) / len(SYSTEM["content"] + FIRST["content"])
    assert marks(FIRST).leading is None


def test_of_a_long_conversation_the_latest_turns_are_marked():
    messages = [FIRST, ANSWER] * 200
    whole, before = marks(*messages, NEXT), marks(*messages[:-1])
    assert len(whole.turns) == 16
    assert before.turns[-1] == whole.turns[-3]
