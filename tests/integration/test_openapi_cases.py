"""Cases that schemathesis makes of the OpenAPI document, asked of a gateway before simulators.

The long run, 50,000 of them against the demo: `make fuzz-api`.
"""

import asyncio

import pytest

from tests.fuzz.openapi import ApiCases
from tests.integration.harness import model

MODELS = ("phi-3-mini", "mistral-7b", "falcon-7b")


@pytest.mark.slow
async def test_no_case_is_answered_otherwise_than_the_document_says(world):
    gate = await world.gate(
        *[model(name, await world.simulator(name, speed=1000.0)) for name in MODELS]
    )
    cases = ApiCases(gate.url, MODELS)
    await asyncio.to_thread(cases.run_round, 1, 3, until=10_000, stop=lambda: False)
    assert not cases.finds, "\n".join(f"{what}: {how}" for what, how in cases.finds.items())
    assert cases.asked > 150
    assert cases.codes[200] > 10
    assert max(cases.codes) < 500


async def test_what_the_document_does_not_have_is_a_find(world):
    """The check itself: an answer of 500, and one of a shape that is not the document's."""
    gate = await world.recorder()
    cases = ApiCases(gate.url, MODELS)
    await asyncio.to_thread(cases.run_round, 1, 1, until=30, stop=lambda: False)
    assert cases.finds
