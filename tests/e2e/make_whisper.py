"""Make a Whisper that hears: tiny, random (seeded) weights. Run by the vLLM environment's Python.

python make_whisper.py TEXT OUT
"""

import json
import sys
from pathlib import Path

import torch
from make_models import PAD, train_tokenizer
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

START = "<|startoftranscript|>"
SPECIAL = (
    START, "<|en|>", "<|transcribe|>", "<|translate|>", "<|startofprev|>", "<|nospeech|>",
    "<|notimestamps|>",
)  # fmt: skip
LAYER = {"layers": 1, "attention_heads": 2, "ffn_dim": 128}


def main(text, out):
    tokenizer = train_tokenizer(text)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.save_pretrained(out)
    # Else transformers finds no processor for it.
    path = out / "tokenizer_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "tokenizer_class": "WhisperTokenizer"})
    )
    WhisperFeatureExtractor(feature_size=80).save_pretrained(out)
    sides = {
        f"{side}_{key}": size for side in ("encoder", "decoder") for key, size in LAYER.items()
    }
    config = WhisperConfig(
        **sides,
        vocab_size=len(tokenizer),
        d_model=64,
        num_mel_bins=80,
        max_target_positions=128,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids(START),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(7)
    WhisperForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2]))
