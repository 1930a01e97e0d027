"""`joulegate demo`: simulated models, a meter and the gateway, and requests through them."""
