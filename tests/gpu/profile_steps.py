"""Measure what a step costs on this machine's GPU, without any server.

    python -m tests.gpu.profile_steps --out steps.jsonl [--models phi-3-mini,mistral-7b,falcon-7b]

For a machine with torch, transformers and nvidia-ml-py and nothing else, not even a network. Models
of the three published sizes with random weights (time and energy depend on sizes, not on what the
weights say) run prefills of 64 to 4,096 tokens and decode steps at batches of 1 to 128 and contexts
of 256 to 4,096 tokens, with NVML's energy counter read beside them. Each result is a line of --out,
written at once; run it again with the same file to go on. The last lines on stdout are the summary:
the counter's period, idle watts, and the parts of the step model (steps_fit.py). It stops by itself
after --budget-seconds (default 450), smallest batches first.

Steps are captured as CUDA graphs where that works (`graph` in a row says so): without them the GPU
waits for Python at small batches. Attention goes without a mask, so that the kernels a server would
use are used. Even so it is not vLLM: no paged attention, no chunked prefill, no fused kernels.
`--tiny` rehearses on the CPU with models of a few thousand parameters and a counter that is made
up; nothing of that is worth keeping.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.gpu.energy_counter import FakeCounter, NvmlCounter
from tests.gpu.model_steps import (
    MODELS,
    Step,
    build_decode_step,
    build_model,
    build_prefill_step,
    compute_cache_bytes,
    graph_step,
    skip_masks,
    split_heads_by_slices,
)
from tests.gpu.steps_fit import compute_period_seconds, compute_watts, summarise_steps

PREFILLS = (64, 128, 256, 512, 1024, 2048, 4096)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXTS = (256, 512, 1024, 2048, 4096)
MEMORY_SHARE = 0.8
LOOK_EVERY_SECONDS = 0.002
SYNCHRONISE_EVERY_SECONDS = 0.05
LEAD_SHARE = 0.3


class StepBench:
    """One run: its device, its counter, and the file that results go to."""

    def __init__(
        self, out: Path, *, tiny: bool, cell_seconds: float, budget_seconds: float
    ) -> None:
        self.tiny = tiny
        self.out = out
        self.device = "cpu" if tiny else "cuda"
        self.counter = FakeCounter() if tiny else NvmlCounter()
        self.cell_seconds = cell_seconds
        self.ends_at = time.monotonic() + budget_seconds
        whole, end, torn = (out.read_text(encoding="utf-8") if out.exists() else "").rpartition(
            "\n"
        )
        if torn:  # the last run was cut off in a line
            out.write_text(whole + end, encoding="utf-8")
        self.records = [json.loads(line) for line in whole.splitlines()]

    def record(self, kind: str, **found: Any) -> None:
        """Keep a result, at once."""
        self.records.append({"kind": kind, **found})
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.records[-1]) + "\n")
        left = max(0.0, self.ends_at - time.monotonic())
        print(f"[{left:4.0f} s left] {self.records[-1]}", flush=True)

    def has_record(self, **key: Any) -> bool:
        """Whether a result is there already."""
        return any(key.items() <= record.items() for record in self.records)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.ends_at

    def synchronise(self) -> None:
        """Wait until the device has done all."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def watch_counter(self, is_over: Callable[[], bool]) -> list[tuple[float, int]]:
        """Read the counter until it is over, as often as it can tell."""
        readings = []
        while not is_over():
            readings.append((time.monotonic(), self.counter.read()))
            time.sleep(LOOK_EVERY_SECONDS / 2)
        return readings

    def watch_rest(self, seconds: float) -> list[tuple[float, int]]:
        """Read the counter for so long while nothing runs."""
        ends_at = time.monotonic() + seconds
        return self.watch_counter(lambda: time.monotonic() >= ends_at)

    def measure_rest(self, seconds: float) -> None:
        """The counter's period, and the power of a device that nothing has touched."""
        readings = self.watch_rest(seconds)
        if not self.has_record(kind="machine"):
            self.record(
                "machine",
                **self.counter.describe(),
                torch=torch.__version__,
                tiny=self.tiny,
                transformers=transformers.__version__,
            )
        if not self.has_record(kind="counter"):
            self.record("counter", period_seconds=compute_period_seconds(readings))
        if not self.has_record(kind="idle"):
            watts = compute_watts(readings)
            self.record("idle", watts=watts and watts[0], changes=watts and watts[1])

    def measure_loaded_rest(self, model: str, seconds: float) -> None:
        """The power of a device that holds a model and waits, as a server between requests."""
        if self.has_record(kind="idle_loaded", model=model):
            return
        self.synchronise()
        time.sleep(seconds)
        watts = compute_watts(self.watch_rest(seconds))
        self.record("idle_loaded", model=model, watts=watts and watts[0])

    def repeat_step(self, step: Step, seconds: float, at_once: int) -> int:
        """Run the step for so long, waiting for the device after each `at_once`; how many ran."""
        ends_at, steps = time.monotonic() + seconds, 0
        while time.monotonic() < ends_at or steps < 3:
            for _ in range(at_once):
                step()
            self.synchronise()
            steps += at_once
        return steps

    def measure_step(self, kind: str, step: Step, **what: Any) -> None:
        """Repeat a step for a cell's time, with the counter read from another thread."""
        step()
        self.synchronise()
        began = time.monotonic()
        steps = self.repeat_step(step, self.cell_seconds * LEAD_SHARE, 1)
        took = (time.monotonic() - began) / steps
        at_once = max(1, int(SYNCHRONISE_EVERY_SECONDS / took))
        readings: list[tuple[float, int]] = []
        over = threading.Event()
        reader = threading.Thread(
            target=lambda: readings.extend(self.watch_counter(over.is_set)), daemon=True
        )
        began = time.monotonic()
        reader.start()
        steps = self.repeat_step(step, self.cell_seconds, at_once)
        seconds = (time.monotonic() - began) / steps
        over.set()
        reader.join()
        watts = compute_watts(readings)
        self.record(
            kind,
            **what,
            steps=steps,
            seconds=seconds,
            watts=watts and watts[0],
            joules=watts and watts[0] * seconds,
            changes=watts and watts[1],
        )


def measure_model(name: str, bench: StepBench, grid: dict[str, Sequence[int]]) -> None:
    """Measure all cells of a model that are not measured yet."""
    cells = [{"kind": "prefill", "batch": 1, "tokens": tokens} for tokens in grid["prefills"]]
    cells += [
        {"kind": "decode", "batch": batch, "context": context}
        for batch in grid["batches"]
        for context in grid["contexts"]
    ]
    wanted = [cell for cell in cells if not bench.has_record(model=name, **cell)]
    if not wanted or bench.is_over:
        return
    model = build_model(name, bench.device, tiny=bench.tiny)
    bench.measure_loaded_rest(name, 2.0 * bench.cell_seconds)
    for cell in wanted:
        if bench.is_over:
            print(f"the time is up; run it again with --out {bench.out} to go on", flush=True)
            return
        what = {key: value for key, value in cell.items() if key != "kind"} | {"model": name}
        if cell["kind"] == "prefill":
            step = build_prefill_step(model, cell["tokens"])
        else:
            size = compute_cache_bytes(model.config, cell["batch"], cell["context"])
            if bench.device == "cuda" and size > MEMORY_SHARE * torch.cuda.mem_get_info()[0]:
                bench.record("skipped", **what, why="its cache does not fit the memory")
                continue
            step = build_decode_step(model, cell["batch"], cell["context"])
        graph = False
        if bench.device == "cuda":
            step, graph = graph_step(step)
        bench.measure_step(cell["kind"], step, **what, graph=graph)
        del step
        if bench.device == "cuda":
            torch.cuda.empty_cache()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every model, then fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of results, JSON lines")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--cell-seconds", type=float, default=1.0)
    parser.add_argument("--budget-seconds", type=float, default=450.0)
    parser.add_argument("--tiny", action="store_true", help="rehearse on the CPU")
    arguments = parser.parse_args(argv)
    bench = StepBench(
        arguments.out,
        tiny=arguments.tiny,
        cell_seconds=arguments.cell_seconds,
        budget_seconds=arguments.budget_seconds,
    )
    grid = {"prefills": PREFILLS, "batches": BATCHES, "contexts": CONTEXTS}
    if arguments.tiny:
        grid = {"prefills": (8, 16, 32), "batches": (1, 2, 4), "contexts": (8, 32)}
    skip_masks()
    split_heads_by_slices()
    with torch.inference_mode():
        bench.measure_rest(0.5 if arguments.tiny else 5.0)
        for name in arguments.models.split(","):
            measure_model(name, bench, grid)
            if bench.device == "cuda":
                torch.cuda.empty_cache()
    print(json.dumps(summarise_steps(bench.records), indent=1), flush=True)


if __name__ == "__main__":
    main()
