"""Make the models that the end-to-end tests serve. Run by the Python of the vLLM environment.

    python make_models.py TEXT OUT [GGUF]

Tiny models of the three real architectures get random weights (seeded) and a byte-level BPE that is
trained on TEXT; SmolLM2-135M is converted from GGUF, since no hub can be reached for its weights.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    GgufConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
)

VOCABULARY = 2000
EOS, PAD = "<|endoftext|>", "<|pad|>"
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
# One line: the role, the text, and the turn that is now due.
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def configurations():
    """Yield name, configuration and chat template; the contexts are those of the real models."""
    gated = {"intermediate_size": 256, "num_key_value_heads": 2}
    yield (
        "phi-3-mini",
        Phi3Config(**SIZE, **gated, max_position_embeddings=4096, sliding_window=2047),
        TEMPLATE,
    )
    yield (
        "mistral-7b",
        MistralConfig(**SIZE, **gated, max_position_embeddings=32768, sliding_window=None),
        TEMPLATE,
    )
    # As the real one: one key-value head, rotary positions, and no chat template.
    falcon = FalconConfig(
        **SIZE,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
        max_position_embeddings=2048,
    )
    yield "falcon-7b", falcon, None


def train_tokenizer(text):
    """Return a byte-level BPE of VOCABULARY entries; any string is encodable."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS, pad_token=PAD
    )


def make_tiny(out, text):
    tokenizer = train_tokenizer(text)
    for name, config, template in configurations():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(out / name)
        model.save_pretrained(out / name)
        print(f"made {name}: {model.num_parameters():,} parameters", flush=True)


def convert_smollm2(out, gguf):
    folder = out / "smollm2-135m"
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    # Left packed, the weights could not be saved again.
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    # The weights are plain bfloat16 now; vLLM would look for a GGUF loader if this stayed.
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("quantization_config", None)
    path.write_text(json.dumps(config, indent=2))
    print("made smollm2-135m from its GGUF", flush=True)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    make_tiny(target, Path(sys.argv[1]).read_text(encoding="utf-8"))
    for file in sys.argv[3:]:
        convert_smollm2(target, Path(file))
