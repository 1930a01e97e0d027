"""Decision time by prompt: `plan_request` in process, three candidates, as a request calls it.

Prose is measured without and with a trained model of answer lengths in the profile, and prose of
2 kB over 30 and 300 candidates too: copies of the three under other names, a backend each.
`python -m tests.bench.decisions SECONDS` prints JSON: a list of Row.
"""

import base64
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from gateway import profile
from gateway.app import create_app
from gateway.commands.demo.example_config import FIRST_PORT, make_example_config
from gateway.config import BackendConfig, GatewayConfig
from gateway.scheduling.text_features import BUCKETS, SHAPES
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from tests.bench.report import share_of
from tests.bench.serving import ROOT

_HEADERS = {
    b"x-joulegate-weight-accuracy": b"0.2",
    b"x-joulegate-weight-energy": b"0.5",
    b"x-joulegate-weight-time": b"0.3",
}
_VARIANTS = 16
"""Texts per row, so that no cache knows the next one."""
_FLEETS = (3, 30, 300)
"""Numbers of candidates."""
_CJK = "的一是不了在人有我他这中大来上个国到说们为子和你地出道也时年得就那要下以"


class Row(NamedTuple):
    """One text and size; microseconds. `decode_us` is the body to raw members, before `plan`."""

    text: str
    size: int
    trained: bool
    """Whether the profile has models of the prompt's words."""
    candidates: int
    rounds: int
    decode_us: float
    p50_us: float
    p99_us: float
    cpu_p50_us: float
    cpu_p99_us: float


def _prose(size: int, rng: random.Random) -> str:
    book = (ROOT / "LICENSE").read_text(encoding="utf-8") * (1 + size // 30_000)
    start = rng.randrange(30_000)
    return book[start : start + size]


def _base64(size: int, rng: random.Random) -> str:
    return base64.b64encode(rng.randbytes(size)).decode()[:size]


def _cjk(size: int, rng: random.Random) -> str:
    return "".join(rng.choices(_CJK, k=size // 3))


def _words(size: int, rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ("".join(rng.choices(letters, k=7)) for _ in range(size // 8 + 1))
    return " ".join(words)[:size]


_TEXTS: dict[str, Callable[[int, random.Random], str]] = {
    "prose": _prose,
    "random words": _words,
    "base64": _base64,
    "one letter": lambda size, rng: rng.choice("aeiou") * size,
    "spaces": lambda size, _: " " * size,
    "newlines": lambda size, _: "\n" * size,
    "digits": lambda size, rng: "".join(rng.choices("0123456789", k=size)),
    "CJK": _cjk,
    "emoji": lambda size, rng: "".join(rng.choices("😀🚀🔥👩🌍", k=size // 4)),
}
_PROSE_SIZES = (100, 2_000, 16_000, 100_000, 1_000_000)
# The worst case of a bounded count may lie just under a bound.
_OTHER_SIZES = (2_000, 6_000, 16_000, 1_000_000)


def _cases() -> Iterator[tuple[str, int, bool, int]]:
    for trained in (False, True):
        for size in _PROSE_SIZES:
            yield "prose", size, trained, _FLEETS[0]
    for text in list(_TEXTS)[1:]:
        for size in _OTHER_SIZES:
            yield text, size, False, _FLEETS[0]
    for candidates in _FLEETS[1:]:
        yield "prose", 2_000, False, candidates


def make_fleet(candidates: int, trained: str | None = None) -> GatewayConfig:
    """Return the example's config with so many models, the three by turns."""
    three = make_example_config(profile=trained)
    models = []
    for number in range(candidates):
        model = three.models[number % len(three.models)]
        if number >= len(three.models):
            model = replace(
                model,
                name=f"{model.name}-{number}",
                profile=model.name,
                backends=(BackendConfig(f"http://127.0.0.1:{FIRST_PORT + number}"),),
            )
        models.append(model)
    return replace(three, models=tuple(models))


def _trained_profile(path: Path) -> str:
    """Write the shipped profile with a length model a model, as `joulegate lengths train` does."""
    shipped = profile.load_profile(None)
    rng = random.Random(1)
    lengths = {
        name: profile.WordsRegression(
            bias=5.0,
            sigma=0.7,
            words=[rng.gauss(0.0, 0.1) for _ in range(BUCKETS)],
            shape=[(0.1, 1.0, 1.0)] * len(SHAPES),
        )
        for name in shipped.models
    }
    profile.save_profile(shipped.models, path, lengths)
    return str(path)


def measure(seconds: float) -> list[Row]:
    """Time every case for `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        trained = _trained_profile(Path(folder) / "profile.json")
        plans = {
            (with_words, candidates): create_app(
                make_fleet(candidates, trained if with_words else None)
            ).state.runtime.gateway.plan_request
            for with_words, candidates in {case[2:] for case in _cases()}
        }
        return [_measure(plans[case[2:]], *case, seconds) for case in _cases()]


def _measure(
    plan: Callable[..., object],
    text: str,
    size: int,
    trained: bool,
    candidates: int,
    seconds: float,
) -> Row:
    rng = random.Random(size)
    bodies = [
        json.dumps(
            {"model": "auto", "messages": [{"role": "user", "content": _TEXTS[text](size, rng)}]},
            ensure_ascii=False,
        ).encode()
        for _ in range(_VARIANTS)
    ]
    decoded, wall, cpu = [], [], []
    until = time.perf_counter() + seconds
    turn = 0
    while (turn < 4 * _VARIANTS or time.perf_counter() < until) and turn < 20_000:
        body = bodies[turn % _VARIANTS]
        began = time.perf_counter()
        ask = parse_request(EndpointKind.CHAT, decode_members(body))
        between = time.perf_counter()
        plan(ask, _HEADERS)
        after = time.perf_counter()
        if turn >= _VARIANTS:
            decoded.append(between - began)
            wall.append(after - between)
        # The thread's own clock stands still while another process has the core.
        ask = parse_request(EndpointKind.CHAT, decode_members(body))
        own = time.thread_time()
        plan(ask, _HEADERS)
        if turn >= _VARIANTS:
            cpu.append(time.thread_time() - own)
        turn += 1
    return Row(
        text,
        size,
        trained,
        candidates,
        len(wall),
        decode_us=_at(decoded, 0.5),
        p50_us=_at(wall, 0.5),
        p99_us=_at(wall, 0.99),
        cpu_p50_us=_at(cpu, 0.5),
        cpu_p99_us=_at(cpu, 0.99),
    )


def _at(values: list[float], share: float) -> float:
    return round(share_of(values, share) * 1e6, 1)


if __name__ == "__main__":
    print(json.dumps([row._asdict() for row in measure(float(sys.argv[1]))]))
