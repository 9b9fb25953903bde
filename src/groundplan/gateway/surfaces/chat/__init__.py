"""OpenAI's chat completions: `surface` is the endpoint, the others read, relay and store for it."""
