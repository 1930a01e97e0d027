"""What the points do not say and the library has to assume: GPUs, and parameters that compute.

Peak rates and board limits are NVIDIA's (dense, without sparsity), parameters the model cards'.
Idle watts are assumed: a GPU that holds a model and has no request.
"""

from gateway.library.shipped import LibraryGpu

PREFILL_UTILISATION = 0.4
"""Share of the peak rate that prefill is assumed to reach."""

GPUS = {
    "H100": LibraryGpu(board_watts=700.0, idle_watts=75.0, bf16_teraflops=989.0),
    "B200": LibraryGpu(board_watts=1000.0, idle_watts=140.0, bf16_teraflops=2250.0),
}

ACTIVE_PARAMETERS = {
    "Qwen/Qwen3-8B": 8.2e9,
    "Qwen/Qwen3-14B": 14.8e9,
    "Qwen/Qwen3-32B": 32.8e9,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 3.3e9,
    "Qwen/Qwen3-30B-A3B-Thinking-2507": 3.3e9,
    "Qwen/Qwen3-235B-A22B-Instruct-2507": 22e9,
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8": 22e9,
    "Qwen/Qwen3-235B-A22B-Thinking-2507": 22e9,
    "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8": 22e9,
    "deepseek-ai/DeepSeek-R1-0528": 37e9,
    "deepseek-ai/DeepSeek-V3.1": 37e9,
    "google/gemma-3-12b-it": 12.2e9,
    "google/gemma-3-27b-it": 27.4e9,
    "meta-llama/Llama-3.1-8B-Instruct": 8.0e9,
    "meta-llama/Llama-3.1-70B-Instruct": 70.6e9,
    "meta-llama/Llama-3.1-405B-Instruct": 406e9,
    "meta-llama/Llama-3.1-405B-Instruct-FP8": 406e9,
    "meta-llama/Llama-3.3-70B-Instruct": 70.6e9,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8": 17e9,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 17e9,
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2": 8.9e9,
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": 12.3e9,
    "openai/gpt-oss-20b": 3.6e9,
    "openai/gpt-oss-120b": 5.1e9,
}
"""Parameters that one token passes through: all of them, or a mixture's active ones."""
