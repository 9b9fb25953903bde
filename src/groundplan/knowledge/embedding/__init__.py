"""Embedding of texts: tokenizer, model, the engines that run it, and the messages of the local service."""
