"""A Python client of docs/clients.md against the gateway at argv[1]; prints one JSON object.

    python sdk_clients.py URL CLIENT

As it comes: what it is told of the gateway is base URL, key and `auto`. A tool is forced where a
call must come, since random weights choose none by themselves.
"""

import asyncio
import json
import os
import sys
from typing import Literal

from pydantic import BaseModel

HELLO = [{"role": "user", "content": "Say hello."}]
LAMP = "Switch the lamp."
LIMIT = 400
"""Tokens: random weights go on until they are cut off."""


class Lamp(BaseModel):
    """The state of a lamp."""

    state: Literal["on", "off"]


SCHEMA = {**Lamp.model_json_schema(), "additionalProperties": False}


def ask_openai(url: str) -> dict:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="unused")
    asked = {"model": "auto", "input": "Say hello.", "max_output_tokens": 16}
    found = {"unary": client.responses.create(**asked).output_text}
    with client.responses.stream(**asked) as stream:
        found["stream"] = "".join(
            event.delta for event in stream if event.type == "response.output_text.delta"
        )
        assert stream.get_final_response().output_text == found["stream"]
    tool = {"type": "function", "name": "switch", "parameters": SCHEMA, "strict": True}
    forced = {"type": "function", "name": "switch"}
    turn = [{"role": "user", "content": LAMP}]
    asked = {"model": "auto", "tools": [tool], "max_output_tokens": LIMIT}
    made = client.responses.create(**asked, input=turn, tool_choice=forced)
    (call,) = [item for item in made.output if item.type == "function_call"]
    found["tool"] = json.loads(call.arguments)["state"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    asked |= {"max_output_tokens": 16, "tool_choice": "none"}
    found["after"] = client.responses.create(**asked, input=[*turn, call, result]).output_text
    parsed = client.responses.parse(model="auto", input=LAMP, text_format=Lamp, temperature=0)
    found["structured"] = parsed.output_parsed.state
    return found


def ask_anthropic(url: str) -> dict:
    from anthropic import Anthropic

    client = Anthropic(base_url=url, api_key="unused")
    asked = {"model": "auto", "max_tokens": 16, "messages": HELLO}
    found = {"unary": client.messages.create(**asked).content[0].text}
    with client.messages.stream(**asked) as stream:
        found["stream"] = "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason in {"end_turn", "max_tokens"}
    turn = [{"role": "user", "content": LAMP}]
    # Without `strict` vLLM 0.32 forces the call and not the shape of its arguments.
    tool = {"name": "switch", "input_schema": SCHEMA, "strict": True}
    asked = {"model": "auto", "tools": [tool]}
    forced = {"type": "tool", "name": "switch"}
    made = client.messages.create(**asked, max_tokens=LIMIT, messages=turn, tool_choice=forced)
    (call,) = [block for block in made.content if block.type == "tool_use"]
    found["tool"] = call.input["state"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
    turn += [{"role": "assistant", "content": made.content}, {"role": "user", "content": [result]}]
    none = {"type": "none"}
    made = client.messages.create(**asked, max_tokens=16, messages=turn, tool_choice=none)
    found["after"] = made.content[0].text
    found["tokens"] = str(client.messages.count_tokens(model="auto", messages=HELLO).input_tokens)
    return found


def ask_langchain(url: str) -> dict:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model="auto",
        base_url=f"{url}/v1",
        api_key="unused",
        use_responses_api=True,
        max_tokens=LIMIT,
    )
    brief = model.bind(max_tokens=16)
    found = {"unary": brief.invoke("Say hello.").text}
    found["stream"] = "".join(chunk.text for chunk in brief.stream("Say hello."))
    switch = {"name": "switch", "description": "Switch a lamp.", "parameters": SCHEMA}
    bound = model.bind_tools([switch], tool_choice="switch", strict=True)
    (call,) = bound.invoke(LAMP).tool_calls
    found["tool"] = call["args"]["state"]
    found["structured"] = model.with_structured_output(Lamp).invoke(LAMP).state
    return found


def ask_pydantic_ai(url: str) -> dict:
    from pydantic_ai import Agent, NativeOutput

    os.environ |= {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "unused"}

    brief = Agent("openai:auto", model_settings={"max_tokens": 16})
    found = {"unary": brief.run_sync("Say hello.").output}
    for kind, wanted in (("tool", Lamp), ("structured", NativeOutput(Lamp))):
        found[kind] = Agent("openai:auto", output_type=wanted).run_sync(LAMP).output.state
    return found


async def ask_agents(url: str) -> dict:
    from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled

    os.environ |= {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "unused"}
    set_tracing_disabled(True)

    @function_tool
    def switch(state: Literal["on", "off"]) -> str:
        """Switch the lamp."""
        return f"switched {state}"

    # An answer that its limit cuts is an error here: a schema has an end.
    lamp = Agent(name="Lamp", instructions="Be brief.", model="auto", output_type=Lamp)
    found = {"structured": (await Runner.run(lamp, LAMP)).final_output.state, "stream": ""}
    streamed = Runner.run_streamed(lamp, LAMP)
    async for event in streamed.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            found["stream"] += event.data.delta
    assert Lamp.model_validate_json(found["stream"]) == streamed.final_output
    switching = Agent(
        name="Switch",
        model="auto",
        tools=[switch],
        model_settings=ModelSettings(tool_choice="required", parallel_tool_calls=False),
        tool_use_behavior="stop_on_first_tool",
    )
    found["tool"] = (await Runner.run(switching, LAMP)).final_output.removeprefix("switched ")
    return found


ASK = {
    "openai": ask_openai,
    "anthropic": ask_anthropic,
    "langchain": ask_langchain,
    "pydantic-ai": ask_pydantic_ai,
    "openai-agents": lambda url: asyncio.run(ask_agents(url)),
}

if __name__ == "__main__":
    print(json.dumps(ASK[sys.argv[2]](sys.argv[1])))
