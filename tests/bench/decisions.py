"""Decision time by prompt: `plan_request` in process, three candidates, as a request calls it.

Every turn plans another prompt: a window of a text, so that nothing knows the whole of it. Prose
and documentation are measured without and with trained models of answer lengths, and of accuracy
beside them, in the profile, and prose of 2 kB over 30 and 300 candidates too: copies of the three
under other names, a backend each. The collector is set as where the gateway serves.
`python -m tests.bench.decisions SECONDS ["TEXT SIZE"]` prints JSON: a list of Row.
"""

import base64
import json
import random
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from gateway import profile
from gateway.accuracy_profile import AccuracyByPrompt, HeadWeights, pack_floats
from gateway.app import create_app
from gateway.commands.demo.example_config import FIRST_PORT, make_example_config
from gateway.config import BackendConfig, GatewayConfig
from gateway.runtime import tune_gc
from gateway.scheduling.text_features import BUCKETS, FORMS, SHAPES, WORD_BUCKETS
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from tests.bench.report import share_of
from tests.bench.serving import ROOT

_HEADERS = {
    b"x-joulegate-weight-accuracy": b"0.2",
    b"x-joulegate-weight-energy": b"0.5",
    b"x-joulegate-weight-time": b"0.3",
}
_WARM_TURNS, _WARM_SIZE = 1_000, 6_000
"""Prompts before those that count: words of the language are known where a gateway serves."""
_LEAST_TURNS = 64
_MOST_TURNS = 20_000
LENGTHS, ACCURACY = "lengths", "lengths and accuracy"
"""What the profile has models of, beside its costs."""
_FLEETS = (3, 30, 300)
"""Numbers of candidates."""
_CJK = "的一是不了在人有我他这中大来上个国到说们为子和你地出道也时年得就那要下以"


class Row(NamedTuple):
    """One text and size; microseconds. `decode_us` is the body to raw members, before `plan`."""

    text: str
    size: int
    trained: str
    """What the profile has models of, by the prompt's words; "" is nothing."""
    candidates: int
    rounds: int
    decode_us: float
    p50_us: float
    p99_us: float
    cpu_p50_us: float
    cpu_p99_us: float


@cache
def _read_book(*patterns: str) -> str:
    return "\n".join(
        path.read_text(encoding="utf-8")
        for pattern in patterns
        for path in sorted(ROOT.glob(pattern))
    )


def _cut_window(book: str, size: int, rng: random.Random) -> str:
    start = rng.randrange(len(book))
    return (book[start:] + book * (1 + size // len(book)))[:size]


def _prose(size: int, rng: random.Random) -> str:
    return _cut_window(_read_book("LICENSE"), size, rng)


def _documentation(size: int, rng: random.Random) -> str:
    return _cut_window(_read_book("README.md", "CHANGELOG.md", "docs/*.md"), size, rng)


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
    "documentation": _documentation,
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


def _cases() -> Iterator[tuple[str, int, str, int]]:
    for text in ("prose", "documentation"):
        for trained in ("", LENGTHS, ACCURACY):
            for size in _PROSE_SIZES:
                yield text, size, trained, _FLEETS[0]
    for text in list(_TEXTS)[2:]:
        for size in _OTHER_SIZES:
            yield text, size, "", _FLEETS[0]
    for candidates in _FLEETS[1:]:
        yield "prose", 2_000, "", candidates


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


def _write_profile(path: Path, trained: str) -> str:
    """Write the shipped profile with a length model a model, as `joulegate lengths train` does.

    And with a head of accuracy a model, as `joulegate accuracy train` makes it.
    """
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
    heads = {
        name: HeadWeights(
            bias=0.5,
            static=0.5,
            words=pack_floats(array("f", [rng.gauss(0.0, 0.1) for _ in range(WORD_BUCKETS)])),
            form=[0.01] * len(FORMS),
            calibration=[(at / 20, at / 20) for at in range(21)],
        )
        for name in shipped.models
    }
    accuracy = AccuracyByPrompt(
        heads,
        means=[1.0] * len(FORMS),
        deviations=[1.0] * len(FORMS),
        variance=pack_floats(array("f", [0.3]) * WORD_BUCKETS),
        familiar=0.5,
        noise=0.3,
    )
    by_prompt = accuracy if trained == ACCURACY else None
    profile.save_profile(shipped.models, path, lengths, by_prompt)
    return str(path)


def measure(seconds: float, only: str = "") -> list[Row]:
    """Time every case for `seconds`; `only`: those of one text and size, as in "prose 2000"."""
    cases = [case for case in _cases() if not only or f"{case[0]} {case[1]}" == only]
    with tempfile.TemporaryDirectory() as folder:
        profiles = {
            trained: _write_profile(Path(folder) / f"{trained}.json", trained)
            for trained in (LENGTHS, ACCURACY)
        }
        plans = {
            (trained, candidates): create_app(
                make_fleet(candidates, profiles.get(trained))
            ).state.runtime.gateway.planner.plan_request
            for trained, candidates in sorted({case[2:] for case in cases})
        }
        tune_gc()
        return [_measure(plans[case[2:]], *case, seconds) for case in cases]


def _measure(
    plan: Callable[..., object],
    text: str,
    size: int,
    trained: str,
    candidates: int,
    seconds: float,
) -> Row:
    rng = random.Random(size)
    decoded, wall, cpu = [], [], []
    for _ in range(_WARM_TURNS):
        body = _make_body(_TEXTS[text](min(size, _WARM_SIZE), rng))
        plan(parse_request(EndpointKind.CHAT, decode_members(body)), _HEADERS)
    spent, turn = 0.0, -_LEAST_TURNS // 4
    while (turn < _LEAST_TURNS or spent < seconds) and turn < _MOST_TURNS:
        body = _make_body(_TEXTS[text](size, rng))
        began = time.perf_counter()
        ask = parse_request(EndpointKind.CHAT, decode_members(body))
        between = time.perf_counter()
        # The thread's own clock stands still while another process has the core.
        own = time.thread_time()
        plan(ask, _HEADERS)
        own, after = time.thread_time() - own, time.perf_counter()
        if turn >= 0:
            decoded.append(between - began)
            wall.append(after - between)
            cpu.append(own)
            spent += after - began
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


def _make_body(text: str) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "auto", "messages": messages}, ensure_ascii=False).encode()


def _at(values: list[float], share: float) -> float:
    return round(share_of(values, share) * 1e6, 1)


if __name__ == "__main__":
    print(json.dumps([row._asdict() for row in measure(float(sys.argv[1]), *sys.argv[2:])]))
