"""The serving model: first token, time per token and throughput of a model on hardware under load, with intervals."""
