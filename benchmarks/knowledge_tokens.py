"""Counts tokens as the embedding model does, for figures by length. Embeds nothing."""

from __future__ import annotations

from collections.abc import Sequence

from groundplan.knowledge.embedding.encoder import Encoder


def count_tokens(encoder: Encoder, texts: Sequence[str]) -> tuple[int, ...]:
    """The number of tokens of each text."""
    encodings = encoder._tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return tuple(len(encoding.ids) for encoding in encodings)
