"""Tool calls: vLLM decodes under the tool's schema, so that even random weights call it right."""

import json

import pytest

ASK = [{"role": "user", "content": "Switch on the light in the kitchen"}]
# `strict`: without it vLLM 0.32 forces the call but not the shape of its arguments.
TOOL = {
    "type": "function",
    "function": {
        "name": "switch",
        "description": "Switch a light",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string", "enum": ["kitchen", "hall"]},
                "state": {"type": "string", "enum": ["on", "off"]},
            },
            "required": ["room", "state"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "switch"}}


def check(name, arguments):
    made = json.loads(arguments)
    assert name == "switch"
    assert made["room"] in {"kitchen", "hall"}
    assert made["state"] in {"on", "off"}


@pytest.mark.parametrize("asked", ["auto", "auto:accuracy", "phi-3-mini"])
@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
async def test_unary(client, asked, choice):
    answer = await client.chat.completions.create(
        model=asked,
        messages=ASK,
        tools=[TOOL],
        tool_choice=choice,
        parallel_tool_calls=False,  # random weights would call on until cut off
        max_tokens=400,
    )
    # Whatever else is better: only this one offers tools here.
    assert answer.model == "phi-3-mini"
    (call,) = answer.choices[0].message.tool_calls
    assert call.id
    check(call.function.name, call.function.arguments)


async def test_stream(client):
    stream = await client.chat.completions.create(
        model="auto", messages=ASK, tools=[TOOL], tool_choice=NAMED, max_tokens=400, stream=True
    )
    name, arguments = "", ""
    async for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    check(name, arguments)


async def test_a_tool_s_answer_goes_back_to_the_model(client):
    call = {"name": "switch", "arguments": '{"room":"kitchen","state":"on"}'}
    messages = [
        *ASK,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call-1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": "done"},
    ]
    answer = await client.chat.completions.create(
        model="auto", messages=messages, tools=[TOOL], tool_choice="none", max_tokens=4
    )
    assert answer.model == "phi-3-mini"
    assert not answer.choices[0].message.tool_calls
