"""`joulegate demo --once`, as somebody who has just installed it runs it."""

import asyncio
import re

from tests.integration.process import joulegate


async def test_the_table_has_what_the_weights_ask_for():
    async with joulegate(
        "demo", "--once", "--port", 0, "--speed", 100, stdout=asyncio.subprocess.PIPE
    ) as process:
        printed = (await process._process.stdout.read()).decode()
        code = await process.ended()
    assert code == 0, process.lines
    assert not process.said("Traceback|Warning")
    chosen = {}
    label = None
    for line in printed.splitlines():
        label = next((name for name in LABELS if line.startswith(name)), label)
        model = re.search(r"\b(phi-3-mini|mistral-7b|falcon-7b)\s+\d\.\d", line)
        if model:
            chosen.setdefault(label, []).append(model[1])
    assert {label: len(models) for label, models in chosen.items()} == dict.fromkeys(LABELS, 8)
    assert set(chosen["accuracy first"]) == {"mistral-7b"}
    assert set(chosen["energy first"]) == {"phi-3-mini"}
    assert set(chosen["time first"]) == {"phi-3-mini"}
    assert "falcon-7b" not in chosen["balanced"]
    # Each answer is as long as it was predicted to be, so that its joules are, but for the noise.
    figures = re.findall(r"\d\.\d{3}\s+\d+\.\d{3}\s+\d+\.\d{3}\s+(\d+)\s+\S+\s+(\d+)", printed)
    assert len(figures) == 32
    assert all(abs(int(true) / int(predicted) - 1) < 0.2 for predicted, true in figures)
    packed = re.search(r"energy first: (\d) and (\d), (\d+) J", printed)
    spread = re.search(r"time first: (\d) and (\d), (\d+) J", printed)
    assert packed.groups()[:2] == ("8", "0")
    assert int(spread[2]) > 0
    assert "curl http://127.0.0.1:" in printed
    assert "from openai import OpenAI" in printed
    assert "\x1b" not in printed


LABELS = ("accuracy first", "energy first", "time first", "balanced")
