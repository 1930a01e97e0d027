"""A vLLM-compatible server without a GPU: real protocol, modelled time and energy.

running = await start_simulator(SimulatorSpec(model="phi-3-mini", truth=truth, speed=20.0))
…  # any OpenAI client at running.url + "/v1"
await running.close()
"""
