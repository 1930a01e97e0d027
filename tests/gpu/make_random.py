"""Make one of the three models at its real size with random weights. Run by vLLM's Python.

    python -m tests.gpu.make_random NAME OUT [--tiny] [--no-weights]

Sizes are those of the published configurations (Phi-3 Mini 3.8B, Mistral-7B-v0.2, Falcon-7B): time
and energy depend on them, not on what the weights say. The tokenizer is a small BPE padded to the
real vocabulary, since no hub can be reached for the real one.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
)

from tests.e2e import make_models

TEXT = Path(__file__).parents[2] / "LICENSE"
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
# The defaults of these classes are the published sizes; what differs is named.
REAL = {
    "phi-3-mini": (Phi3Config, {"sliding_window": 2047}),
    "mistral-7b": (MistralConfig, {"sliding_window": None, "max_position_embeddings": 32768}),
    "falcon-7b": (FalconConfig, {"max_position_embeddings": 2048}),
}


def configuration(name, *, tiny):
    """Return the model's configuration and chat template."""
    for small_name, small, template in make_models.configurations():
        if small_name == name:
            kind, changed = REAL[name]
            return (small if tiny else kind(**IDS, **changed)), template
    raise SystemExit(f"no model {name!r}; there are: {', '.join(REAL)}")


def padded(tokenizer, vocabulary):
    """Return the tokenizer with an entry for every token that the model can say."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    entries = state["model"]["vocab"]
    for number in range(len(entries), vocabulary):
        entries[f"\u0120x{number}"] = number  # a blank and a name; no merge leads to it
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token=make_models.EOS,
        eos_token=make_models.EOS,
        pad_token=make_models.PAD,
    )


def make(name, out, *, tiny, weights):
    """Write the model's folder."""
    config, template = configuration(name, tiny=tiny)
    tokenizer = make_models.train_tokenizer(TEXT.read_text(encoding="utf-8"))
    tokenizer = padded(tokenizer, config.vocab_size)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(out)
    if not weights:
        config.architectures = [
            {"phi3": "Phi3", "mistral": "Mistral", "falcon": "Falcon"}[config.model_type]
            + "ForCausalLM"
        ]
        config.save_pretrained(out)
        return
    torch.manual_seed(7)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(out)
    print(f"made {name}: {model.num_parameters():,} parameters", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-weights", action="store_true")
    given = parser.parse_args()
    make(given.name, given.out, tiny=given.tiny, weights=not given.no_weights)
