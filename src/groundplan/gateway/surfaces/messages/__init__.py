"""Anthropic's Messages: `surface` is the endpoint, the others read and translate for it, and word its errors."""
