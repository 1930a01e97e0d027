"""Whose unread prompts are counted: those of backends that another could stand in for."""

from types import SimpleNamespace

import pytest

from backends.registry import Backend
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.service.upstream.prompt_backlog import PromptBacklog

SCORED = SimpleNamespace(tokens_in=7)
HOUR = CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (3600.0, 0.0, 0.0))
OPTION = SimpleNamespace(seconds=HOUR)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_counts_until_it_is_released_once(stream):
    backend = Backend("http://b")
    backlog = PromptBacklog(backend, SCORED, OPTION, stream=stream)
    assert backend.prompt_tokens == SCORED.tokens_in
    backlog.release()
    backlog.release()
    assert backend.prompt_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_where_there_is_no_choice_nothing_is_counted(stream):
    backend = Backend("http://b")
    backend.has_peers = False
    backlog = PromptBacklog(backend, SCORED, OPTION, stream=stream)
    assert backend.prompt_tokens == 0
    backlog.release()
    assert backend.prompt_tokens == 0
