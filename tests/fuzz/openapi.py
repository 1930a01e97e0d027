"""`python -m tests.fuzz.openapi`: cases that schemathesis makes of the OpenAPI document, asked.

The gateway is `joulegate demo`: simulated backends, a meter, real sockets. Of each operation half
the cases keep to the document and half break it. Where the document leaves open what OpenAI
defines, prompts of the usual shapes and the names of served models stand in it, or few cases would
pass the first look. A find is an answer of 500 and above,
none at all, or one that the document does not have: status, content type or schema. Each is shown
once, as a curl command; exits 1 where there are any. A line a round; SIGTERM ends it at the next.
"""

import argparse
import copy
import itertools
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.api.openapi import build_document
from tests.bench import machine, serving

_Json = dict[str, Any]
_CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_EXAMPLES: Final = 40
"""Cases of an operation and mode in a round."""
_ROUTED: Final = ("auto", "auto:energy", "no-such-model")
_PATIENCE_SECONDS: Final = 60.0
_QUIET: Final = {
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
_MESSAGE: Final[_Json] = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type", "text"],
                        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                    },
                },
            ]
        },
    },
}
_WORDS: Final[_Json] = {"type": "string", "minLength": 1}
_MANY: Final[_Json] = {"type": "array", "minItems": 1, "items": _WORDS}
_NUMBERS: Final[_Json] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 0},
}
_MESSAGES: Final[_Json] = {"type": "array", "minItems": 1, "items": _MESSAGE}
_PROMPTS: Final = {"messages": _MESSAGES, "prompt": _WORDS, "input": _WORDS}
_OTHERS: Final = _PROMPTS | {
    "query": _WORDS,
    "documents": _MANY,
    "text_1": _WORDS,
    "text_2": _MANY,
    "texts": _MANY,
    "tokens": _NUMBERS,
    "token_ids": _NUMBERS,
}
"""What vLLM's other endpoints want between them; each passes over what is another's."""


def widen_document(models: Sequence[str]) -> _Json:
    """Return the OpenAPI document, closed where it leaves open what the served models take."""
    document = copy.deepcopy(build_document())
    for operation in itertools.chain.from_iterable(
        path.values() for path in document["paths"].values()
    ):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = content["schema"]
            properties = schema.get("properties", {})
            if "request_id" in properties:
                continue
            known = {name: of for name, of in _PROMPTS.items() if name in properties} or _OTHERS
            schema["properties"] = properties | known | {"model": {"enum": [*models, *_ROUTED]}}
            schema["required"] = ["model", *known]
    return document


class ApiCases:
    """Asks a gateway one case after the other, and keeps what came of them."""

    def __init__(self, url: str, models: Sequence[str]) -> None:
        self._url = url
        self._session = requests.Session()
        self._schema = schemathesis.openapi.from_dict(widen_document(models))
        self.codes: Counter[int] = Counter()
        self.finds: dict[str, str] = {}
        """What was found, by what tells one from another; how to see it again."""

    @property
    def asked(self) -> int:
        """How many were answered."""
        return self.codes.total()

    def run_round(
        self, number: int, examples: int, *, until: int, stop: Callable[[], bool]
    ) -> None:
        """Draw so many cases of each operation that keep to the document, and that do not."""
        for found, mode in itertools.product(self._schema.get_all_operations(), GenerationMode):
            operation = found.ok()
            if self.asked >= until or stop():
                return
            cases = operation.as_strategy(generation_mode=mode)
            ask = seed(number)(
                settings(max_examples=examples, **_QUIET)(given(cases)(self._ask_twice))
            )
            try:
                ask()
            except Unsatisfiable:
                continue  # nothing of it can be broken

    def _ask_twice(self, case: Any) -> None:
        """Ask as it was drawn, and without the headers, one of which most cases fail by."""
        self._ask(case)
        if case.headers:
            case.headers.clear()
            self._ask(case)

    def _ask(self, case: Any) -> None:
        try:
            answer = case.call(base_url=self._url, session=self._session, timeout=_PATIENCE_SECONDS)
        except (UnicodeError, requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL):
            return  # no client could send it
        except requests.exceptions.RequestException as error:
            self._note(case, type(error).__name__, str(error))
            return
        self.codes[answer.status_code] += 1
        try:
            case.validate_response(answer, checks=_CHECKS)
        except (Failure, FailureGroup) as error:
            for one in getattr(error, "exceptions", [error]):
                self._note(case, f"{type(one).__name__} {answer.status_code}", str(one)[:1000])

    def _note(self, case: Any, what: str, said: str) -> None:
        key = f"{case.method} {case.operation.path}: {what}"
        if key not in self.finds:
            self.finds[key] = f"{said}\n    {case.as_curl_command()}"


def fuzz_api(cases: ApiCases, total: int, first_seed: int, stop: Callable[[], bool]) -> None:
    """Ask until so many were answered, or `stop` says so."""
    began = time.monotonic()
    for number in itertools.count():
        cases.run_round(first_seed + number, _EXAMPLES, until=total, stop=stop)
        took = time.monotonic() - began
        codes = dict(sorted(cases.codes.items()))
        print(f"{cases.asked:,} cases in {took:,.0f} s: {codes}", file=sys.stderr, flush=True)
        if cases.asked >= total or stop():
            return


def list_models(url: str) -> list[str]:
    """Return the names of the models that a gateway serves."""
    answer = requests.get(f"{url}/v1/models", timeout=_PATIENCE_SECONDS).json()
    return [one["id"] for one in answer["data"] if not one["id"].startswith("auto")]


def main() -> int:
    """Read the arguments, ask, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.openapi", description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given_ = parser.parse_args()
    warnings.simplefilter("ignore")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    print(f"seed {given_.seed}")
    port = serving.free_port()
    command = [sys.executable, "-m", "gateway", "demo", "--port", str(port), "--speed", "1000"]
    with serving.running(command, serving.ROOT, set(machine.cores()), port, "/ready"):
        url = f"http://{serving.HOST}:{port}"
        cases = ApiCases(url, list_models(url))
        fuzz_api(cases, given_.cases, given_.seed, lambda: bool(stopped))
    for what, how in cases.finds.items():
        print(f"{what}\n    {how}")
    print(f"{cases.asked:,} cases, {len(cases.finds)} finds; {dict(sorted(cases.codes.items()))}")
    return int(bool(cases.finds))


if __name__ == "__main__":
    sys.exit(main())
