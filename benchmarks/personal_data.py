"""A generated, labelled set of texts with personal data and secrets in them, and with what only resembles them.

Every value is made by the public rule of its kind, check digits included, independently of the detectors that are
measured on it. Near misses have a wrong check digit, a wrong length, or are another thing altogether (order numbers,
versions, dates). Names and addresses are in the carrier texts, labelled as `person` and `address`: patterns do not
cover them.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with (start, end, type) of everything in it."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


def _digits(dice: random.Random, count: int, first: str = string.digits) -> str:
    return dice.choice(first) + "".join(dice.choice(string.digits) for _ in range(count - 1))


def _luhn(partial: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(partial)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return partial + str(-total % 10)


def card(dice: random.Random) -> str:
    start = dice.choice(("4", "51", "52", "2221", "6011"))
    number = _luhn(start + _digits(dice, 15 - len(start)))
    if dice.random() < 0.2:
        number = _luhn("37" + _digits(dice, 12))
        return number if dice.random() < 0.5 else f"{number[:4]} {number[4:10]} {number[10:]}"
    form = dice.random()
    if form < 0.4:
        return number
    return (" " if form < 0.8 else "-").join(number[at : at + 4] for at in range(0, 16, 4))


_IBAN = {"DE": 18, "NL": 0, "FR": 23, "ES": 20, "NO": 11, "SE": 20, "AT": 16, "CH": 17, "GB": 0, "PL": 24, "BE": 12}


def iban(dice: random.Random) -> str:
    country = dice.choice(list(_IBAN))
    body = _digits(dice, _IBAN[country]) if _IBAN[country] else ""
    if country == "NL":
        body = dice.choice(("ABNA", "INGB", "RABO")) + _digits(dice, 10)
    if country == "GB":
        body = dice.choice(("NWBK", "BARC", "WEST")) + _digits(dice, 14)
    turned = "".join(str(int(c, 36)) for c in body + country + "00")
    whole = f"{country}{98 - int(turned) % 97:02d}{body}"
    return whole if dice.random() < 0.5 else " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))


def email(dice: random.Random) -> str:
    user = dice.choice(("anna", "j.smith", "info", "o_brien", "max+news", "p.nguyen2", "karl-heinz")) + dice.choice(
        ("", str(dice.randrange(99)))
    )
    host = dice.choice(("example.com", "mail.acme.example", "uni-ulm.de", "post.co.uk", "firma.se", "web.de", "x.io"))
    return f"{user}@{host}"


def ip(dice: random.Random) -> str:
    if dice.random() < 0.7:
        return ".".join(
            str(dice.choice((10, 172, 192, 203, 8, 81))) if n == 0 else str(dice.randrange(256)) for n in range(4)
        )
    parts = [f"{dice.randrange(1, 65536):x}" for _ in range(8)]
    return ":".join(parts) if dice.random() < 0.5 else "2001:db8::" + ":".join(parts[:3])


def mac(dice: random.Random) -> str:
    return dice.choice((":", "-")).join(f"{dice.randrange(256):02X}" for _ in range(6))


def phone(dice: random.Random) -> str:
    forms = (
        lambda: f"+49 {dice.choice(('30', '89', '170', '151'))} {_digits(dice, 7, '23456789')}",
        lambda: f"+46 70 {_digits(dice, 3)} {_digits(dice, 2)} {_digits(dice, 2)}",
        lambda: f"+1 {dice.choice(('212', '415', '646'))}-{_digits(dice, 3, '23456789')}-{_digits(dice, 4)}",
        lambda: f"({dice.choice(('212', '415', '305'))}) {_digits(dice, 3, '23456789')}-{_digits(dice, 4)}",
        lambda: f"+44 20 7946 0{_digits(dice, 3)}",
        lambda: f"+33 6 {' '.join(_digits(dice, 2) for _ in range(4))}",
        lambda: f"0{dice.choice(('30', '40', '89'))}/{_digits(dice, 7, '23456789')}",
        lambda: f"+34 6{_digits(dice, 2)} {_digits(dice, 3)} {_digits(dice, 3)}",
    )
    return dice.choice(forms)()


def us_ssn(dice: random.Random) -> str:
    area = dice.choice([n for n in range(1, 900) if n != 666])
    return f"{area:03d}-{dice.randrange(1, 100):02d}-{dice.randrange(1, 10000):04d}"


def es_nif(dice: random.Random) -> str:
    if dice.random() < 0.6:
        number = _digits(dice, 8)
        return number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]
    lead, rest = dice.choice("XYZ"), _digits(dice, 7)
    return lead + rest + "TRWAGMYFPDXBNJZSQVHLCKE"[int("012"["XYZ".index(lead)] + rest) % 23]


def fr_nir(dice: random.Random) -> str:
    born = f"{dice.choice('12')}{dice.randrange(30, 99):02d}{dice.randrange(1, 13):02d}"
    body = f"{born}{dice.randrange(1, 96):02d}{_digits(dice, 6)}"
    whole = body + f"{97 - int(body) % 97:02d}"
    return (
        whole
        if dice.random() < 0.5
        else " ".join((whole[0], whole[1:3], whole[3:5], whole[5:7], whole[7:10], whole[10:13], whole[13:]))
    )


def de_tax(dice: random.Random) -> str:
    while True:
        body = _digits(dice, 10, "123456789")
        if len(set(body)) in (8, 9):
            break
    product = 10
    for digit in body:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    return body + str((11 - product) % 10)


def pl_pesel(dice: random.Random) -> str:
    body = f"{dice.randrange(100):02d}{dice.randrange(1, 13):02d}{dice.randrange(1, 29):02d}{_digits(dice, 4)}"
    total = sum(int(d) * w for d, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=True))
    return body + str(-total % 10)


def se_pnr(dice: random.Random) -> str:
    body = f"{dice.randrange(100):02d}{dice.randrange(1, 13):02d}{dice.randrange(1, 29):02d}{_digits(dice, 3)}"
    whole = _luhn(body)
    return f"{dice.choice(('', '19'))}{whole[:6]}-{whole[6:]}"


def it_cf(dice: random.Random) -> str:
    letters = string.ascii_uppercase
    body = (
        "".join(dice.choice("BCDFGLMNPRST") for _ in range(6)) + f"{dice.randrange(100):02d}"
        + dice.choice("ABCDEHLMPRST") + f"{dice.randrange(1, 32):02d}" + dice.choice(letters) + _digits(dice, 3)
    )  # fmt: skip
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
    total = 0
    for place, c in enumerate(body):
        value = int(c) if c.isdigit() else letters.index(c)
        total += odd[value] if place % 2 == 0 else value
    return body + letters[total % 26]


def uk_nino(dice: random.Random) -> str:
    while True:
        lead = dice.choice("ABCEGHJKLMNPRSTWXYZ") + dice.choice("ABCEGHJKLMNPRSTWXYZ")
        if lead not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ"):
            return f"{lead}{_digits(dice, 6)}{dice.choice('ABCD')}"


def uk_nhs(dice: random.Random) -> str:
    while True:
        body = _digits(dice, 9, "123456789")
        check = 11 - sum(int(d) * w for d, w in zip(body, range(10, 1, -1), strict=True)) % 11
        if check != 10:
            whole = body + str(check % 11)
            return f"{whole[:3]} {whole[3:6]} {whole[6:]}"


def fi_hetu(dice: random.Random) -> str:
    day = f"{dice.randrange(1, 29):02d}{dice.randrange(1, 13):02d}{dice.randrange(100):02d}"
    number = f"{dice.randrange(2, 900):03d}"
    return f"{day}{dice.choice('-A')}{number}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(day + number) % 31]}"


def sg_nric(dice: random.Random) -> str:
    lead, body = dice.choice("STFG"), _digits(dice, 7)
    total = sum(int(d) * w for d, w in zip(body, (2, 7, 6, 5, 4, 3, 2), strict=True)) + (4 if lead in "TG" else 0)
    return lead + body + ("JZIHGFEDCBA" if lead in "ST" else "XWUTRQPNMLK")[total % 11]


def in_pan(dice: random.Random) -> str:
    letters = string.ascii_uppercase
    return (
        "".join(dice.choice(letters) for _ in range(3))
        + dice.choice("ABCFGHLJPT")
        + dice.choice(letters)
        + _digits(dice, 4)
        + dice.choice(letters)
    )


_B58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def crypto(dice: random.Random) -> str:
    import hashlib  # noqa: PLC0415 -- only here

    raw = bytes([dice.choice((0, 5))]) + bytes(dice.randrange(256) for _ in range(20))
    data = raw + hashlib.sha256(hashlib.sha256(raw).digest()).digest()[:4]
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = _B58[rest] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def _key(dice: random.Random, count: int, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(dice.choice(letters) for _ in range(count))


def secret(dice: random.Random) -> str:
    forms = (
        lambda: "AKIA" + _key(dice, 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        lambda: "gh" + "p_" + _key(dice, 36),
        lambda: "sk-" + "proj-" + _key(dice, 40),
        lambda: "xox" + "b-" + _digits(dice, 12) + "-" + _key(dice, 24),
        lambda: "eyJ" + _key(dice, 20) + ".eyJ" + _key(dice, 40) + "." + _key(dice, 43),
        lambda: "glpat" + "-" + _key(dice, 20),
    )
    return dice.choice(forms)()


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "card": card, "iban": iban, "email": email, "ip": ip, "mac": mac, "phone": phone, "us_ssn": us_ssn,
    "es_nif": es_nif, "fr_nir": fr_nir,
    "de_tax": de_tax, "pl_pesel": pl_pesel, "se_pnr": se_pnr, "it_cf": it_cf, "uk_nino": uk_nino,
    "uk_nhs": uk_nhs, "fi_hetu": fi_hetu, "sg_nric": sg_nric, "in_pan": in_pan, "crypto": crypto, "secret": secret,
}  # fmt: skip
"""By type, how a value is made."""
_NAMES = ("Anna Berg", "John Smith", "Zoë Müller", "Nguyễn Văn An", "Pierre Dupont", "Kari Nordmann")
_PLACES = ("Storgatan 12, Västerås", "12 Main Street, Springfield", "Hauptstraße 5, 10115 Berlin")
_CARRIERS = (
    "Please update the record of {person}: {value}.", "{value} is what I have on file, is that right?",
    "Hi, this is {person}. My details: {value}, and I live at {address}.", "Kunde {person}, {address}. Angabe: {value}",
    "see attached (ref. {noise}) {value}\nThanks, {person}", "id={value};status=ok;order={noise}",
    "\"value\": \"{value}\", \"version\": \"{version}\"", "- {value}\n- {noise}\n- {date}",
    "On {date} at 14:03 we got {value} from {person}", "The number {value} was given by phone.",
)  # fmt: skip


def noise(dice: random.Random) -> str:
    """What is none: order numbers, amounts, hashes, near misses of check digits."""
    good = card(dice).replace(" ", "").replace("-", "")
    forms = (
        lambda: f"ORD-{_digits(dice, 8)}", lambda: f"{dice.randrange(1, 99)},{_digits(dice, 3)}.{_digits(dice, 2)} EUR",
        lambda: _key(dice, 12, "0123456789abcdef"), lambda: good[:-1] + str((int(good[-1]) + 1) % 10),
        lambda: f"INV{_digits(dice, 6)}/{dice.randrange(2020, 2027)}", lambda: f"{_digits(dice, 5)} units",
        lambda: f"{dice.randrange(1, 13)}h{dice.randrange(60):02d}",
        lambda: f"part no. {_digits(dice, 4)}-{_digits(dice, 3)}",
        lambda: f"10.{dice.randrange(20)}", lambda: "DE00 " + " ".join(_digits(dice, 4) for _ in range(4)) + " 00",
    )  # fmt: skip
    return dice.choice(forms)()


def texts(count: int, seed: int = 7) -> list[Labelled]:
    """`count` texts of each type, and as many without anything that patterns cover."""
    dice = random.Random(seed)
    found = [_carried(dice, kind, make(dice)) for kind, make in MAKERS.items() for _ in range(count)]
    found += [_carried(dice, "", noise(dice)) for _ in range(count * 4)]
    dice.shuffle(found)
    return found


def _carried(dice: random.Random, kind: str, value: str) -> Labelled:
    parts = {
        "value": value, "person": dice.choice(_NAMES), "address": dice.choice(_PLACES), "noise": noise(dice),
        "version": f"{dice.randrange(9)}.{dice.randrange(20)}.{dice.randrange(9)}",
        "date": f"{dice.randrange(2019, 2027)}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}",
    }  # fmt: skip
    text, spans = "", []
    rest = dice.choice(_CARRIERS)
    while "{" in rest:
        before, _, after = rest.partition("{")
        name, _, rest = after.partition("}")
        text += before
        label = kind if name == "value" else name if name in ("person", "address") else ""
        if label:
            spans.append((len(text), len(text) + len(parts[name]), label))
        text += parts[name]
    return Labelled(text + rest, tuple(spans))
