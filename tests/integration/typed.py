"""Responses and Messages as vLLM answers them, for backends that do what a test scripts."""

import json


def typed(kind, **fields):
    """One event of a stream, in the compact JSON that vLLM writes."""
    data = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def response(asked, text="Hi", status="completed", **fields):
    """A response to what a backend was asked."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    return {
        "id": asked.get("request_id", "resp_1"),
        "object": "response",
        "created_at": 1,
        "model": asked["model"],
        "status": status,
        "output": [{**item, "content": content}] if text else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 10,
        },
    } | fields


def response_events(asked, words=("Hi", " there")):
    """The events of a streamed response; the last is `response.completed`."""
    opened = response(asked, "", "in_progress", usage=None)
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    text = "".join(words)
    kinds = [
        ("response.created", {"response": opened}),
        ("response.in_progress", {"response": opened}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        ("response.content_part.added", {**where, "part": part}),
        *(("response.output_text.delta", {**where, "delta": w, "logprobs": []}) for w in words),
        ("response.output_text.done", {**where, "text": text, "logprobs": []}),
        ("response.completed", {"response": response(asked, text)}),
    ]
    return [
        typed(kind, sequence_number=number, **fields) for number, (kind, fields) in enumerate(kinds)
    ]


def message(asked, text="Hi", **fields):
    """A message to what a backend was asked."""
    return {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "model": asked["model"],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 2},
    } | fields


def message_events(asked, words=("Hi", " there")):
    """The events of a streamed message; the last is `message_stop`."""
    opened = message(asked, content=[], stop_reason=None)
    opened["usage"] = {"input_tokens": 7, "output_tokens": 0}
    block = {"type": "text", "text": ""}
    deltas = [
        typed("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        for word in words
    ]
    return [
        typed("message_start", message=opened),
        typed("content_block_start", index=0, content_block=block),
        *deltas,
        typed("content_block_stop", index=0),
        typed(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 2},
        ),
        typed("message_stop"),
    ]


def read_typed(raw):
    """The events of an answer, each as (event, data)."""
    found = []
    for part in raw.split(b"\n\n"):
        lines = dict(line.split(b": ", 1) for line in part.split(b"\n") if b": " in line)
        if b"data" in lines:
            found.append((lines.get(b"event", b"").decode(), json.loads(lines[b"data"])))
    return found
