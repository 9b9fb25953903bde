"""Prices that are not per token: generated images, spoken characters, minutes of transcribed audio.

Picodollars, rounded up. Tokens of the same call are priced by `price`.
"""

from __future__ import annotations

from groundplan.blueprint.model import Rates

ANY = "any"
_OPEN = (None, "auto")
"""A size or quality that the provider chooses."""


def image_price(rates: Rates, size: str | None, quality: str | None) -> int | None:
    """Price of one generated image; None where no price covers its class. A size or quality that is left open (None or
    `auto`) has the highest price that it can get: the provider decides."""
    prices = rates.images
    if size in _OPEN:
        return max(prices.values(), default=None)
    named = None if quality in _OPEN else prices.get(f"{size}/{quality}")
    if named is not None:
        return named
    unnamed = prices.get(size, prices.get(ANY))
    if quality not in _OPEN:
        return unnamed
    of_size = [price for name, price in prices.items() if name.partition("/")[0] == size]
    return max(of_size if unnamed is None else [*of_size, unnamed], default=None)


def made_image_price(rates: Rates, size: str | None, quality: str | None) -> int | None:
    """As `image_price`, for an image that was made. A quality that neither the request nor the answer names (None) is
    the provider's default, which has the price of the size alone where one is declared."""
    if quality is None and size is not None and size in rates.images:
        return rates.images[size]
    return image_price(rates, size, quality)


def speech_price(rates: Rates, characters: int) -> int:
    """Price of so many characters read aloud."""
    return -(-characters * rates.characters // 1_000_000)


def audio_price(rates: Rates, seconds: int) -> int:
    """Price of so many seconds of transcribed audio."""
    return -(-seconds * rates.minute // 60)
