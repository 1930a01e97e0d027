"""Time and memory of `joulegate fit` on 100,000 rows; run it as a script.


Not a test: a shared machine would make it lie. The budget is 2 s and 500 MB beyond imports.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.fit import command as fit_command

ROWS = 100_000


def made() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    i = rng.choice([32, 128, 512, 1024, 2048, 4096], ROWS)
    o = rng.choice([16, 64, 128, 256, 512, 1024], ROWS)
    r = rng.choice([0, 3, 15, 63], ROWS)
    noise = 1 + 0.02 * rng.standard_normal((2, ROWS))
    seconds = (0.02 + 2e-4 * i + 0.012 * o + 1e-6 * i * o + 2e-4 * o * r) * noise[0]
    joules = (20 + 0.03 * i + 0.5 * o + 5e-5 * i * o + 3 * o / (1 + r)) * noise[1]
    columns = {
        "run": "r1", "cell": "grid", "block": 1, "repeat": 1,
        "request_id": [f"req-{number:012d}" for number in range(ROWS)], "model": "phi-3-mini",
        "backend": "http://127.0.0.1:8000", "tokens_in": i, "tokens_out": o, "cached_tokens": 0,
        "tiktoken_in": np.round(i / 1.07).astype(int), "seconds": seconds, "ttft_seconds": 0.1,
        "joules": joules, "method": "exclusive", "running": r, "waiting": 0, "concurrency": r + 1,
        "hardware": "NVIDIA H200", "engine": "vllm 0.32.0", "at": "2026-11-20T06:00:00Z",
    }  # fmt: skip
    return pd.DataFrame(columns)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        made().to_csv(path, index=False)
        before, wall, cpu = peak_megabytes(), time.perf_counter(), time.process_time()
        code = fit_command.run(fit_command.FitOptions([path], out=Path(folder) / "profile.json"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    more = peak_megabytes() - before
    print(f"exit {code}; {wall:.2f} s ({cpu:.2f} s of CPU), {more:.0f} MB beyond {before:.0f} MB")


if __name__ == "__main__":
    main()
