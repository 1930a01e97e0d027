"""A pytest plugin that gives vLLM's own tests a running server instead of one of their own.

It stands in for their `tests.utils`, which would import and start half of vLLM, and gives the small
model's files, whose folder is JOULEGATE_CONFORMANCE_MODEL, for any that they would download. The
address is in JOULEGATE_CONFORMANCE_URL. Each test's outcome is written to JOULEGATE_CONFORMANCE_LOG
as it ends, and what stands there is not run again: a run that was stopped goes on where it was.
"""

import os
import sys
import types
from pathlib import Path
from typing import ClassVar, Self

import anthropic
import openai
import pytest
import transformers
import vllm.tokenizers
from outcomes import BEGUN, read_outcomes, write_line
from vllm.model_executor.model_loader import weight_utils
from vllm.transformers_utils import repo_utils

URL = os.environ["JOULEGATE_CONFORMANCE_URL"]
MODEL = os.environ["JOULEGATE_CONFORMANCE_MODEL"]
LOG = Path(os.environ["JOULEGATE_CONFORMANCE_LOG"])


class RemoteOpenAIServer:
    """What their fixtures take for the server that they started."""

    DUMMY_API_KEY = "token-abc123"
    uds = None

    def __init__(self, *_: object, **__: object) -> None:
        self.url_root = URL
        self.host, self.port = URL.removeprefix("http://").split(":")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def url_for(self, *parts: str) -> str:
        """Return the address of a path."""
        return "/".join((URL, *(part.strip("/") for part in parts)))

    def get_client(self, **more: object) -> openai.OpenAI:
        """Return OpenAI's client."""
        return openai.OpenAI(**self._options("v1", more))

    def get_async_client(self, **more: object) -> openai.AsyncOpenAI:
        """Return OpenAI's asynchronous client."""
        return openai.AsyncOpenAI(**self._options("v1", more))

    def get_client_anthropic(self, **more: object) -> anthropic.Anthropic:
        """Return Anthropic's client."""
        return anthropic.Anthropic(**self._options("", more))

    def get_async_client_anthropic(self, **more: object) -> anthropic.AsyncAnthropic:
        """Return Anthropic's asynchronous client."""
        return anthropic.AsyncAnthropic(**self._options("", more))

    def _options(self, path: str, more: dict) -> dict:
        base = {"base_url": f"{URL}/{path}".rstrip("/"), "api_key": self.DUMMY_API_KEY}
        return {**base, "max_retries": 0, "timeout": 600, **more}


class _Utils(types.ModuleType):
    """Their module of helpers: what is not stood in for marks a test as not for here."""

    RemoteOpenAIServer = RemoteOpenAIServer
    ROCM_ENV_OVERRIDES: ClassVar[dict] = {}
    ROCM_EXTRA_ARGS: ClassVar[list] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: pytest.skip(f"tests.utils.{name} is not stood in for")


_get_tokenizer = vllm.tokenizers.get_tokenizer
_from_pretrained = transformers.AutoTokenizer.from_pretrained


class _Hub:
    """What they take for the model hub."""

    def snapshot_download(self, **_: object) -> str:
        """Return the small model's folder."""
        return MODEL


def _get_local_tokenizer(*_: object, tokenizer_name: str = "", **more: object) -> object:
    del tokenizer_name
    return _get_tokenizer(MODEL, **more)


def _load_local_tokenizer(*_: object, **more: object) -> object:
    return _from_pretrained(MODEL, **more)


vllm.tokenizers.get_tokenizer = _get_local_tokenizer
transformers.AutoTokenizer.from_pretrained = _load_local_tokenizer
repo_utils.hf_api = _Hub
# Asked for by a test whose model is then called by the folder: a name that is served, instead.
weight_utils.download_weights_from_hf = lambda name, *_, **__: name
sys.modules["tests.utils"] = _Utils("tests.utils")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has an outcome."""
    known = read_outcomes(LOG)
    left_out = [item for item in items if item.nodeid in known]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item.nodeid not in known]


def pytest_runtest_logstart(nodeid: str) -> None:
    """Write that a test begins: one that begins twice and never ends holds up nobody."""
    write_line(LOG, nodeid, BEGUN)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write what a test came to."""
    if report.when == "call" or report.outcome != "passed":
        _write_report(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Write that a file cannot be read."""
    if report.outcome == "failed":
        _write_report(report)


def _write_report(report: pytest.TestReport | pytest.CollectReport) -> None:
    crash = getattr(report.longrepr, "reprcrash", None)
    why = "" if report.outcome == "passed" else str(crash.message if crash else report.longrepr)
    write_line(LOG, report.nodeid, report.outcome, why[-200:])
