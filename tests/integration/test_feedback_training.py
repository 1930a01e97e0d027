"""Training from what a gateway was told with `POST /v1/feedback`, against training from labels.

Three models answer through a gateway that explores and keeps hashed features, each answer is judged
once over HTTP, and `joulegate accuracy train --from-log` reads nothing but the decision log.
"""

import asyncio

from gateway.config import GatewayConfig, LogConfig
from gateway.deciding_config import AccuracyLearningConfig, LearningConfig
from tests.integration import harness
from tests.integration.harness import CALM, model, until
from tests.lab.bandit_month import MODELS, draw_texts
from tests.lab.judged_training import (
    measure_always,
    measure_choices,
    train_accuracy,
    train_on_labels,
)

ROWS, AT_ONCE = 3000, 12
PROFILES = dict(zip(MODELS, ("phi-3-mini", "falcon-7b", "mistral-7b"), strict=True))
EXPLORING = AccuracyLearningConfig(
    "thompson", answers_per_hour=1e6, joules_per_hour=1e12, even_share=0.5
)


async def judge_all(gate, drawn):
    """Ask and judge every prompt, some at once."""
    waiting = iter(drawn)

    async def work():
        for text, prompt in waiting:
            messages = [{"role": "user", "content": text}]
            body = {"model": "auto", "messages": messages, "max_tokens": 1}
            got = await gate.ask(body)
            score = prompt.scores[got.headers["x-joulegate-model"]]
            said = {"request_id": got.headers["x-request-id"], "score": score}
            assert (await gate.ask(said, path="/v1/feedback")).status == 200

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def test_feedback_through_a_gateway_trains_within_a_twentieth_of_labels(world, tmp_path):
    log, one, two = (tmp_path / name for name in ("decisions.jsonl", "one.json", "two.json"))
    servers = {name: await world.simulator(PROFILES[name], speed=1000.0) for name in MODELS}
    config = GatewayConfig(
        models=tuple(
            model(name, servers[name], profile=PROFILES[name], served_name=PROFILES[name])
            for name in MODELS
        ),
        health=CALM,
        default_model=MODELS[0],
        learning=LearningConfig(accuracy=EXPLORING),
        log=LogConfig(decisions=str(log), features=True),
    )
    async with harness.serve(config) as gate:
        await judge_all(gate, draw_texts(11, ROWS))
        await until(lambda: len(log.read_bytes().splitlines()) == 2 * ROWS, "the whole log")
    assert draw_texts(11, 1).__next__()[0] not in log.read_text()
    await asyncio.to_thread(train_accuracy, log, "--from-log", "--out", two)
    await asyncio.to_thread(train_on_labels, draw_texts(11, ROWS), tmp_path / "labels.csv", one)
    by_labels, by_feedback, always = measure_choices(one), measure_choices(two), measure_always()
    assert by_labels < always
    assert by_feedback <= 1.05 * by_labels
