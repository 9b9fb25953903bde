"""The metadata of what OpenAI's API stores: up to sixteen pairs of short texts. Keeps none."""

from __future__ import annotations

from groundplan.core.errors import Invalid

_MAX_PAIRS, _MAX_NAME_LENGTH, _MAX_TEXT_LENGTH = 16, 64, 512


def check_metadata(value: object) -> dict[str, str]:
    """Return the metadata. Raises `Invalid` where it is not what OpenAI allows."""
    pairs = {} if value is None else value
    good = isinstance(pairs, dict) and len(pairs) <= _MAX_PAIRS
    if good and isinstance(pairs, dict):
        good = all(
            len(name) <= _MAX_NAME_LENGTH and isinstance(text, str) and len(text) <= _MAX_TEXT_LENGTH
            for name, text in pairs.items()
        )
    if not good or not isinstance(pairs, dict):
        raise Invalid(
            "metadata is wrong",
            code="metadata_invalid",
            hint=f"Send at most {_MAX_PAIRS} names of {_MAX_NAME_LENGTH} characters, with texts of {_MAX_TEXT_LENGTH}.",
        )
    return pairs
