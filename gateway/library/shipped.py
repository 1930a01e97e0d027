"""The shipped file of entries: read, found by name, and evaluated."""

import difflib
from functools import cache
from importlib import resources
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.profile import ProfileError

CHAT_TASK = "lm-arena-chat"
_FILE = "library.json"
_FP8 = "fp8"
_TERMS = 5

Coefficients = Annotated[list[float], Meta(min_length=_TERMS, max_length=_TERMS)]


class LibraryError(ProfileError):
    """No entry has this name; the message names those that come close."""


class LibraryGpu(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of GPU: its limits (NVIDIA's) and what it is assumed to draw when idle."""

    board_watts: float
    idle_watts: float
    bf16_teraflops: float

    def peak_flops(self, precision: str) -> float:
        """Return dense operations a second for weights of a precision; fp8 doubles them.

        Weights of 4 bits are unpacked to 16 before they are multiplied.
        """
        return self.bf16_teraflops * 1e12 * (2.0 if precision == _FP8 else 1.0)


class ErrorSummary(Struct, frozen=True, forbid_unknown_fields=True):
    """Relative errors of points that were predicted by fits to the others of their series."""

    median: float
    mean: float


class OverallErrors(Struct, frozen=True, forbid_unknown_fields=True):
    """Leave-one-out errors over all points of all series that are long enough."""

    least_points: int
    series: int
    points: int
    joules: ErrorSummary
    seconds: ErrorSummary


class LibraryEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One model on one set of GPUs; `batch` has the lowest and highest mean batch measured.

    `seconds` and `joules` are b0 to b4 of the `load` form per request.
    """

    model_id: str
    task: str
    gpu: str
    gpus: int
    precision: str
    tensor_parallel: int
    data_parallel: int
    expert_parallel: int
    active_parameters: float
    points: int
    batch: Annotated[list[float], Meta(min_length=2, max_length=2)]
    answer_tokens: float
    seconds: Coefficients
    joules: Coefficients
    joules_error: ErrorSummary
    seconds_error: ErrorSummary

    def joules_per_token(self, running: float) -> float:
        """Joules of one generated token, `running` other requests beside it."""
        return self.joules[2] + self.joules[4] / (1.0 + running)

    def seconds_per_token(self, running: float) -> float:
        """Seconds of one generated token, `running` other requests beside it."""
        return self.seconds[2] + self.seconds[4] * running


class Library(Struct, frozen=True, forbid_unknown_fields=True):
    """The shipped file: entries by name, and what all of them assume."""

    version: int
    source: str
    prefill_utilisation: float
    gpus: dict[str, LibraryGpu]
    leave_one_out: OverallErrors
    entries: dict[str, LibraryEntry]

    def find_entry(self, name: str) -> tuple[str, LibraryEntry]:
        """Return an entry with its full name; case and the publisher's prefix do not matter.

        A model that was not measured chatting is found without its task. Raises LibraryError.
        """
        wanted = name.lower().rpartition("/")[2]
        folded = {known.lower(): known for known in self.entries}
        tasks = [known for low, known in folded.items() if low.startswith(f"{wanted}:")]
        if wanted in folded:
            return folded[wanted], self.entries[folded[wanted]]
        if len(tasks) == 1:
            return tasks[0], self.entries[tasks[0]]
        near = difflib.get_close_matches(wanted, folded, n=4, cutoff=0.5)
        hint = f"; close: {', '.join(folded[one] for one in near)}" if near else ""
        raise LibraryError(f"no {name!r} in the library (joulegate library list){hint}")

    def prompt_token_seconds(self, entry: LibraryEntry) -> float:
        """Seconds that one prompt token is assumed to take: 2 x parameters / (GPUs' peak x use)."""
        peak = self.gpus[entry.gpu].peak_flops(entry.precision)
        return 2.0 * entry.active_parameters / (entry.gpus * peak * self.prefill_utilisation)

    def prompt_token_joules(self, entry: LibraryEntry) -> float:
        """Joules that one prompt token is assumed to take: its seconds at the boards' limit."""
        return self.prompt_token_seconds(entry) * entry.gpus * self.gpus[entry.gpu].board_watts

    def idle_watts(self, entry: LibraryEntry) -> float:
        """Watts of all the entry's GPUs without a request, assumed."""
        return entry.gpus * self.gpus[entry.gpu].idle_watts


@cache
def load_library() -> Library:
    """Read the library in the package."""
    raw = (resources.files("gateway") / "profiles" / _FILE).read_bytes()
    return msgspec.json.decode(raw, type=Library)


def name_entry(model_id: str, gpu: str, gpus: int, task: str) -> str:
    """Return MODEL@GPU, MODEL@2xGPU for several, with :TASK for another task than chat."""
    where = gpu if gpus == 1 else f"{gpus}x{gpu}"
    suffix = "" if task == CHAT_TASK else f":{task}"
    return f"{model_id.rpartition('/')[2]}@{where}{suffix}"
