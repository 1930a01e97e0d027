"""The names that clients may ask for."""

import openai
import pytest

from gateway.config import PresetConfig, WeightsConfig
from tests.integration.harness import CHAT

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLEET = {"presets": {"eco": PresetConfig(WeightsConfig(energy=1))}}
NAMES = (
    "auto",
    "auto:accuracy",
    "auto:energy",
    "auto:time",
    "auto:balanced",
    "auto:frugal",
    "auto:eco",
    "phi-3-mini",
    "mistral-7b",
    "falcon-7b",
)


async def test_the_list_has_models_auto_and_presets(gate):
    listed = (await gate.get("/v1/models")).json
    assert listed["object"] == "list"
    assert sorted(card["id"] for card in listed["data"]) == sorted(NAMES)
    for card in listed["data"]:
        assert card["object"] == "model"
        assert isinstance(card["created"], int)
        assert card["owned_by"]
    by_name = {card["id"]: card for card in listed["data"]}
    assert by_name["mistral-7b"]["max_model_len"] == 8192
    # Clients take the first they find: vLLM's own bench does, and wants its `root`.
    first = listed["data"][0]
    assert first["id"] in NAMES[-3:]
    assert (first["root"], first["parent"], first["permission"]) == (first["id"], None, [])
    assert "chat" in first["capabilities"]
    assert [card["id"] in NAMES[-3:] for card in listed["data"]] == [True] * 3 + [False] * 7
    eco = by_name["auto:eco"]
    assert eco["weights"] == {"accuracy": 0.0, "energy": 1.0, "time": 0.0}
    assert eco["max_model_len"] == 8192
    assert "energy 1" in eco["description"]


async def test_every_listed_name_can_be_looked_up_and_asked_for(gate):
    async with gate.sdk() as sdk:
        names = [card.id async for card in await sdk.models.list()]
        for name in [*names, "joulegate/auto", "joulegate/auto:eco"]:
            assert (await sdk.models.retrieve(name)).id == name
            answer = await sdk.chat.completions.create(model=name, messages=CHAT["messages"])
            assert answer.model in NAMES[-3:]


@pytest.mark.parametrize("name", ["nope", "auto:nope", "AUTO", "joulegate/phi-3-mini", "a/b/c"])
async def test_unknown_names(gate, name):
    async with gate.sdk() as sdk:
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.models.retrieve(name)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.chat.completions.create(model=name, messages=CHAT["messages"])
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert caught.value.type == "invalid_request_error"


async def test_unknown_names_make_no_labels(gate):
    before = await gate.metric("joulegate_requests_total", requested="other", code="404")
    for k in range(3):
        assert (await gate.ask(CHAT | {"model": f"made-up-{k}"})).status == 404
    after = await gate.metric("joulegate_requests_total", requested="other", code="404")
    assert after - before == 3
    assert b"made-up" not in (await gate.get("/metrics")).raw
