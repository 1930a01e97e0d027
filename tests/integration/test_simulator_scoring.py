"""The simulated vLLM's endpoints that read and do not write, through the gateway and by name."""

import aiohttp
import pytest

from tests.integration.harness import model


@pytest.fixture
async def gate(world):
    chat = await world.simulator()
    embedder = await world.simulator(served="embed-small", embeddings=True)
    return await world.gate(
        model("phi-3-mini", chat),
        model("embed-small", embedder, profile="phi-3-mini", capabilities=("embeddings",)),
    )


async def test_documents_are_ranked(gate):
    ask = {"model": "embed-small", "query": "a", "documents": ["b", {"text": "c"}, "d"]}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        got = (await gate.ask(ask, path=path)).json
        scores = [one["relevance_score"] for one in got["results"]]
        assert scores == sorted(scores, reverse=True)
        assert {one["index"] for one in got["results"]} == {0, 1, 2}
    assert len((await gate.ask(ask | {"top_n": 1}, path="/rerank")).json["results"]) == 1
    assert (await gate.ask({"model": "embed-small"}, path="/rerank")).status == 400


async def test_texts_are_scored_classified_and_pooled(gate):
    ask = {"model": "embed-small", "text_1": "a", "text_2": ["b", "c"]}
    assert [d["index"] for d in (await gate.ask(ask, path="/v1/score")).json["data"]] == [0, 1]
    assert (await gate.ask(ask | {"text_1": ["a"] * 3}, path="/score")).status == 400
    ask = {"model": "embed-small", "input": ["good", "bad"]}
    for found in (await gate.ask(ask, path="/classify")).json["data"]:
        assert sum(found["probs"]) == pytest.approx(1.0)
    pooled = (await gate.ask(ask, path="/pooling")).json["data"]
    embedded = (await gate.ask(ask, path="/v1/embeddings")).json["data"]
    assert [one["data"] for one in pooled] == [one["embedding"] for one in embedded]
    got = (await gate.ask({"model": "embed-small", "texts": ["a"]}, path="/v2/embed")).json
    assert len(got["embeddings"]["float"]) == 1


async def test_reading_costs_energy_and_a_record_says_so(gate):
    got = await gate.ask({"model": "embed-small", "input": "x"}, path="/classify")
    record = await gate.record(got)
    assert record["kind"] == "classify"
    assert record["observed"]["joules"] > 0
    got = await gate.ask({"model": "embed-small", "prompt": "x"}, path="/tokenize")
    assert (await gate.record(got))["observed"]["joules"] is None


async def test_a_model_that_chats_does_none_of_it(gate):
    got = await gate.ask({"model": "phi-3-mini", "input": "x"}, path="/pooling")
    assert (got.status, got.json["error"]["code"]) == (404, "endpoint_not_served")


async def test_chat_never_chooses_the_embedder(gate):
    ask = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    for weight in ("accuracy", "energy", "time"):
        got = await gate.ask(ask, {f"x-joulegate-weight-{weight}": "1"})
        assert got.headers["x-joulegate-model"] == "phi-3-mini"
    got = await gate.ask({"model": "auto", "input": "x"}, path="/v1/embeddings")
    assert got.headers["x-joulegate-model"] == "embed-small"


async def test_sound_is_heard_and_the_tokeniser_told_of(gate):
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        form = aiohttp.FormData({"model": "phi-3-mini"})
        form.add_field("file", b"\0" * 32_000, filename="a.wav")
        async with gate.http.post(path, data=form) as got:
            assert (await got.json())["text"].startswith("[simulated")
    async with gate.sdk() as sdk:
        heard = await sdk.audio.transcriptions.create(
            model="phi-3-mini", file=("a.wav", b"\0" * 100), response_format="text"
        )
        assert "[simulated" in heard
    assert (await gate.get("/tokenizer_info?model=phi-3-mini")).json["eos_token"]


@pytest.mark.parametrize("name", [b"$\x19", b"\xff", b""])
async def test_a_form_that_cannot_be_read_is_the_clients_fault(world, name):
    simulator = await world.simulator()
    body = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\nnull\r\n--x--\r\n' % name
    head = {"content-type": "multipart/form-data; boundary=x"}
    url = f"{simulator.url}/v1/audio/transcriptions"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=head) as got,
    ):
        assert got.status == 400
