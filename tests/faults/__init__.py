"""Every fault a backend may have, against a real gateway and the real OpenAI SDK: `make faults`."""
