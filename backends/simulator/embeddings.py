"""Embeddings without meaning: unit-sized vectors drawn from a hash of the text."""

import base64
from array import array
from random import Random
from typing import Any

DEFAULT_DIMENSIONS = 64


def build_embedding(
    index: int, mark: int, seed: int, dimensions: int, encoding: str
) -> dict[str, Any]:
    """One entry of `data`; `encoding` is float or base64 (little-endian 32-bit floats)."""
    rng = Random(f"{seed}:{mark}")  # noqa: S311 - to be repeatable
    vector = array("f", (rng.gauss(0.0, dimensions**-0.5) for _ in range(dimensions)))
    coded: Any = vector.tolist()
    if encoding == "base64":
        coded = base64.b64encode(vector.tobytes()).decode()
    return {"index": index, "object": "embedding", "embedding": coded}
