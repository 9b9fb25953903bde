"""Check digits of national identity numbers and account numbers. Pure; each function takes the text as found.

Implemented from the public description of each number; whether a number was ever issued is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VERHOEFF_D = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
    [3, 4, 0, 1, 2, 8, 9, 5, 6, 7], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
    [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3], [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
]  # fmt: skip
_VERHOEFF_P = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4], [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
    [8, 9, 1, 6, 0, 4, 3, 5, 2, 7], [9, 4, 5, 3, 1, 2, 6, 8, 7, 0], [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
    [2, 7, 9, 3, 8, 0, 6, 4, 1, 5], [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
]  # fmt: skip


def only_digits(text: str) -> str:
    return "".join(c for c in text if c.isascii() and c.isdigit())


def weighted_sum(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def is_nhs_number(text: str) -> bool:
    """NHS number: modulus 11 of ten digits."""
    digits = only_digits(text)
    check = 11 - weighted_sum(digits[:9], range(10, 1, -1)) % 11
    return check != 10 and check % 11 == int(digits[9])


def is_finnish_id(text: str) -> bool:
    """Henkilötunnus: the last character by the nine digits before it, modulo 31."""
    plain = text.upper()
    digits = plain[:6] + plain[7:10]
    day, month = int(plain[:2]), int(plain[2:4])
    return 1 <= day <= 31 and 1 <= month <= 12 and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] == plain[10]


def is_singapore_id(text: str) -> bool:
    """NRIC or FIN."""
    plain = text.upper()
    total = weighted_sum(plain[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(plain[0], 0)
    if plain[0] == "M":
        return "XWUTRQPNJLK"[10 - total % 11] == plain[8]
    letters = "JZIHGFEDCBA" if plain[0] in "ST" else "XWUTRQPNMLK"
    return letters[total % 11] == plain[8]


def is_aadhaar(text: str) -> bool:
    """Aadhaar: Verhoeff's check over twelve digits."""
    digits = only_digits(text)
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _VERHOEFF_D[check][_VERHOEFF_P[place % 8][int(digit)]]
    return len(digits) == 12 and digits[0] not in "01" and check == 0 and digits != digits[::-1]


def is_australian_tfn(text: str) -> bool:
    """Tax file number of nine digits."""
    return weighted_sum(only_digits(text), (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def is_dutch_bsn(text: str) -> bool:
    """BSN: the eleven test."""
    digits = only_digits(text)
    return weighted_sum(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and int(digits) > 0


def is_belgian_id(text: str) -> bool:
    """National number: 97 less the first nine digits modulo 97; for those born from 2000 on with a 2 before them."""
    digits = only_digits(text)
    said = int(digits[9:])
    return said in (97 - int(digits[:9]) % 97, 97 - int("2" + digits[:9]) % 97)


def is_bitcoin_address(text: str) -> bool:
    """An address: Base58Check, or Bech32 in either form."""
    if text.lower().startswith("bc1"):
        return _is_bech32(text)
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    if number.bit_length() > 200:
        return False
    data = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()[:4] == data[21:]


def _is_bech32(text: str) -> bool:
    if text not in (text.lower(), text.upper()):
        return False
    plain = text.lower()
    values = [ord(c) >> 5 for c in "bc"] + [0] + [ord(c) & 31 for c in "bc"] + [_BECH32.index(c) for c in plain[3:]]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check in (1, 0x2BC830A3)


def card_lengths(digits: str) -> range | tuple[int, ...]:
    """The valid lengths of a payment card with these first digits; empty for prefixes that no card has, such as the
    years that order numbers often begin with."""
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if two // 10 == 4:
        return 16, 19  # cards of 13 digits are no longer issued, and German article numbers look like them
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return (16,)
    if two in (34, 37):
        return (15,)
    if two in (36, 38, 39) or 300 <= three <= 305:
        return 14, 16
    if 2200 <= four <= 2204 or 3528 <= four <= 3589:
        return range(16, 20)
    return range(13, 20) if two == 50 or two >= 56 else ()
