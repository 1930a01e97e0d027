"""Models of the published sizes with random weights, and what they do in one step.

Needs torch and transformers, which the project's environment has not.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
import transformers

MODELS = {
    "phi-3-mini": (transformers.Phi3Config, {"sliding_window": None, "pad_token_id": 0}),
    "mistral-7b": (transformers.MistralConfig, {"sliding_window": None}),
    "falcon-7b": (transformers.FalconConfig, {}),
}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
}

Step = Callable[[], None]


def skip_masks() -> None:
    """Have attention run without a mask, and heads that share keys share them in the kernel.

    All sequences of a step are equally long here, so there is nothing to mask; with a mask the keys
    and values are copied once per query head and the fast kernels are not chosen.
    """
    for name in ("phi3", "mistral", "falcon"):
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        module.create_causal_mask = lambda *_, **__: None
    attend = torch.nn.functional.scaled_dot_product_attention

    def attend_shared(query: Any, key: Any, value: Any, **options: Any) -> Any:
        """Attend with fewer heads of keys than of queries too."""
        options["enable_gqa"] = query.shape[1] != key.shape[1]
        return attend(query, key, value, **options)

    torch.nn.functional.scaled_dot_product_attention = attend_shared


def split_heads_by_slices() -> None:
    """Have Falcon take its one head of keys and of values by slices.

    transformers takes them by lists of one number, which torch makes a tensor of on the CPU and
    copies to the GPU in every layer: the step waits for each copy, and no CUDA graph can hold it.
    """
    attention = importlib.import_module("transformers.models.falcon.modeling_falcon")
    split = attention.FalconAttention._split_heads

    def split_heads(self: Any, fused: Any) -> tuple[Any, Any, Any]:
        """Return queries, keys and values, each [batch, tokens, heads, width]."""
        if self.new_decoder_architecture or not self.multi_query:
            return split(self, fused)
        heads = fused.unflatten(-1, (self.num_heads + 2, self.head_dim))
        return heads[..., :-2, :], heads[..., -2:-1, :], heads[..., -1:, :]

    attention.FalconAttention._split_heads = split_heads


def build_model(name: str, device: str, *, tiny: bool) -> Any:
    """Return a model of the published size, or of a tiny one, with random weights."""
    kind, changed = MODELS[name]
    config = kind(**changed, **(TINY if tiny else {}))
    if tiny:
        config.intermediate_size, config.num_key_value_heads = 64, 4
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32 if tiny else torch.bfloat16
        )
    return model.eval()


def graph_step(step: Step) -> tuple[Step, bool]:
    """Return the step as a CUDA graph where it can be captured."""
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        print(f"no CUDA graph: {error}", file=sys.stderr, flush=True)
        torch.cuda.synchronize()
        return step, False
    return graph.replay, True


def compute_cache_bytes(config: Any, batch: int, context: int) -> int:
    """Return what the keys and values of so many tokens take in bfloat16."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if getattr(config, "multi_query", False):
        heads = 1
    width = config.hidden_size // config.num_attention_heads
    return 2 * 2 * config.num_hidden_layers * heads * width * batch * context


def build_decode_step(model: Any, batch: int, context: int) -> Step:
    """Return one decode step of so many sequences, each with so much behind it."""
    device = model.device
    cache = transformers.StaticCache(config=model.config, max_cache_len=context + 1)
    token = torch.ones((batch, 1), dtype=torch.long, device=device)
    place = torch.full((batch, 1), context, dtype=torch.long, device=device)
    first = torch.zeros_like(place)
    # makes the cache's tensors
    model(input_ids=token, position_ids=first, past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        layer.keys.normal_()
        layer.values.normal_()

    def set_length() -> None:
        """Say again how much is behind it: each step adds one."""
        for layer in cache.layers:
            length = getattr(layer, "cumulative_length", None)
            if isinstance(length, torch.Tensor):
                length.fill_(context)
            elif length is not None:
                layer.cumulative_length = context

    def step() -> None:
        set_length()
        model(
            input_ids=token,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )

    return step


def build_prefill_step(model: Any, tokens: int) -> Step:
    """Return the prefill of one prompt of so many tokens."""
    prompt = torch.randint(1, model.config.vocab_size, (1, tokens), device=model.device)
    places = torch.arange(tokens, device=model.device).unsqueeze(0)
    return lambda: model(input_ids=prompt, position_ids=places, use_cache=False, logits_to_keep=1)
