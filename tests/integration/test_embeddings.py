"""Embeddings: from a model that has them, refused where none has."""

from tests.integration.harness import model

ABLE = ("embeddings",)


async def test_embeddings_are_served_by_the_model_that_has_them(world):
    chats = await world.simulator("phi-3-mini")
    embeds = await world.simulator("mistral-7b", embeddings=True, served="org/e5")
    gate = await world.gate(
        model("phi-3-mini", chats),
        model("e5", embeds, profile="mistral-7b", served_name="org/e5", capabilities=ABLE),
    )
    for name in ("auto", "auto:energy", "e5"):
        body = {"model": name, "input": ["one", "two", "one"]}
        got = await gate.ask(body, path="/v1/embeddings")
        assert (got.status, got.json["model"], got.headers["x-joulegate-model"]) == (
            200,
            "e5",
            "e5",
        )
        one, two, again = (entry["embedding"] for entry in got.json["data"])
        assert one == again != two
        record = await gate.record(got)
        assert record["usage"]["prompt_tokens"] == got.json["usage"]["prompt_tokens"] > 0
        assert (record["kind"], record["code"]) == ("embeddings", 200)
    got = await gate.ask(
        {"model": "auto", "input": [1, 2, 3]}, {"x-joulegate-explain": "1"}, "/v1/embeddings"
    )
    assert got.json["joulegate"]["model"] == "e5"
    assert got.json["joulegate"]["tokens"]["input"] == 3
    async with gate.sdk() as sdk:
        answer = await sdk.embeddings.create(model="auto", input="one")
        assert answer.data[0].embedding == one
    # And the other way round: it does not chat.
    got = await gate.ask({"model": "e5", "messages": [{"role": "user", "content": "Hi"}]})
    assert (got.status, got.json["error"]["code"]) == (400, "unsupported_capability")


async def test_chat_models_refuse_embeddings_without_being_asked(world):
    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", backend))
    for name in ("auto", "phi-3-mini"):
        got = await gate.ask({"model": name, "input": "text"}, path="/v1/embeddings")
        error = got.json["error"]
        assert (got.status, error["type"], error["code"]) == (
            400,
            "invalid_request_error",
            "unsupported_capability",
        )
        assert "embeddings" in error["message"]
    assert backend.seen == []
