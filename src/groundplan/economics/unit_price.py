"""Prices that are not per token: generated images, spoken characters, minutes of transcribed audio.

Picodollars, rounded up. Tokens of the same call are priced by `price`.
"""

from __future__ import annotations

from groundplan.blueprint.model import Rates

ANY = "any"


def image_price(rates: Rates, size: str | None, quality: str | None) -> int | None:
    """Price of one generated image; None where no price covers its class. An open size or quality is the dearest."""
    prices = rates.images
    if not prices:
        return None
    if size is None or size == "auto" or quality == "auto":
        fitting = [p for name, p in prices.items() if size in (None, "auto") or name.partition("/")[0] in (size, ANY)]
        return max(fitting, default=None)
    if quality is not None and f"{size}/{quality}" in prices:
        return prices[f"{size}/{quality}"]
    if size in prices:
        return prices[size]
    of_size = [found for name, found in prices.items() if name.partition("/")[0] == size]
    return max(of_size) if quality is None and of_size else prices.get(ANY)


def speech_price(rates: Rates, characters: int) -> int:
    """Price of so many characters read aloud."""
    return -(-characters * rates.characters // 1_000_000)


def audio_price(rates: Rates, seconds: int) -> int:
    """Price of so many seconds of transcribed audio."""
    return -(-seconds * rates.minute // 60)
