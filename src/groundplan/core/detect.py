"""Finds personal data and secrets in text by patterns, and redacts them. Pure: text in, positions out.

A pattern with a check digit matches only where the digit is right. Names, postal addresses and other data without a
pattern are not found; a model for those can be added as another `Detector`. Callers decide what to do about a match.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from groundplan.core import check_digits

PERSONAL = ("email", "iban", "card", "national_id", "phone", "ip", "mac", "crypto")
"""Where two kinds match the same text, the earlier one wins: kinds with a check digit come first."""
SECRETS = ("groundplan_key", "aws_key", "github_token", "api_key", "jwt", "private_key")
KINDS = (*PERSONAL, *SECRETS)


PIECE = 16 << 10
"""Characters that are searched at once, without letting other threads run."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """`text[start:end]` looks like a `kind`."""

    start: int
    end: int
    kind: str


Detector = Callable[[str], Iterable[Found]]


def find(text: str, detectors: Sequence[Detector] = (), kinds: frozenset[str] | None = None) -> list[Found]:
    """Find personal data and secrets, in order and without overlaps: the earlier, then the longer match wins.

    `detectors` are called in addition to the patterns of this module; `kinds` restricts the latter.
    """
    typed = _normalize(text)
    digits = any(c in typed for c in "0123456789")
    every = [
        found
        for shape in _SHAPES
        if (kinds is None or shape.kind in kinds) and shape.may_be_in(typed, digits)
        for found in shape.search(typed)
    ]
    every += [found for detector in detectors for found in detector(text)]
    every.sort(key=lambda found: (found.start, -found.end, KINDS.index(found.kind) if found.kind in KINDS else 99))
    return merge_overlaps(every)


def merge_overlaps(found: Iterable[Found]) -> list[Found]:
    """Merge overlapping matches, which must be sorted by start and then by descending length."""
    kept: list[Found] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
        elif one.end > kept[-1].end:
            # two matches overlap: no part of either may stay
            kept[-1] = Found(kept[-1].start, one.end, kept[-1].kind)
    return kept


def redact(text: str, detectors: Sequence[Detector] = ()) -> tuple[str, dict[str, int]]:
    """Replace each match by `[kind]`; return the text and the number of matches by kind."""
    return redact_found(text, find(text, detectors))


def redact_found(text: str, found: Sequence[Found]) -> tuple[str, dict[str, int]]:
    """`redact`, with matches that were found before."""
    parts: list[str] = []
    at = 0
    for one in found:
        parts += (text[at : one.start], f"[{one.kind}]")
        at = one.end
    return "".join((*parts, text[at:])), dict(sorted(Counter(one.kind for one in found).items()))


_PLAIN = (
    dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " ")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\uff0d", "-")
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {"\uff0b": "+", "\uff20": "@", "\uff0e": "."}
)
_UNUSUAL = re.compile(f"[{''.join(_PLAIN)}]")


def _normalize(text: str) -> str:
    """Replace typographic spaces, hyphens and digits by those of a keyboard, one character by one."""
    if text.isascii():
        return text
    parts = (text[at : at + PIECE] for at in range(0, len(text), PIECE))
    return "".join([_UNUSUAL.sub(lambda found: _PLAIN[found[0]], part) for part in parts])


def next_match(pattern: re.Pattern[str], text: str, at: int, *, longest: int) -> re.Match[str] | None:
    """`pattern.search(text, at)`, a piece of the text at a time, since a search does not release the GIL and takes up
    to a second for a megabyte. `longest`: the most characters that a match examines; it must not examine the end of
    the text."""
    while at + PIECE + longest < len(text):
        found = pattern.search(text, at, at + PIECE + longest)
        if found is not None and found.start() < at + PIECE:
            return found
        at += PIECE
    return pattern.search(text, at)


def matches(pattern: re.Pattern[str], text: str, longest: int) -> Iterator[re.Match[str]]:
    """`pattern.finditer(text)`, a piece of the text at a time; see `next_match`."""
    at = 0
    while (found := next_match(pattern, text, at, longest=longest)) is not None:
        yield found
        at = found.end()


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others, as on payment cards."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _alphanumerics(text: str) -> str:
    return "".join(c for c in text if c.isascii() and c.isalnum()).upper()


def _is_card(text: str) -> bool:
    digits = _alphanumerics(text)
    return len(set(digits)) > 1 and len(digits) in check_digits.card_lengths(digits) and passes_luhn(digits)


def _is_iban(text: str) -> bool:
    plain = _alphanumerics(text)
    turned = plain[4:] + plain[:4]
    checked = plain[2:4] not in ("00", "01", "99")  # ISO 7064 gives 02 to 98
    return checked and 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        (15, "NO"), (16, "BE"), (18, "DK FI FO GL NL"), (19, "MK SI"), (20, "AT BA EE KZ LT LU XK"),
        (21, "CH HR LI LV"), (22, "BG BH CR DE GB GE IE ME RS VA"), (23, "AE GI IL IQ TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"), (25, "LY PT ST"), (26, "IS TR"), (27, "FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB PL SV"), (29, "BR EG PS QA UA"), (30, "JO KW MU"), (31, "MT SC"), (32, "LC"),
    )
    for country in countries.split()
}  # fmt: skip


def _iban_prefix(text: str) -> int:
    """Length of an account number that is followed by other letters or digits, from the length for its country; 0 for
    none."""
    wanted = _IBAN_LENGTHS.get(text[:2], 0)
    for at, found in enumerate(text, 1):
        wanted -= found != " "
        if not wanted:
            return at if text[at : at + 1] == " " and _is_iban(text[:at]) else 0
    return 0


def _looks_random(text: str) -> bool:
    """Whether a key looks random, unlike a name made of words, such as `pk_order_line_items_history`."""
    return any(
        len(part) > _LONGEST_WORD or (len(part) >= 8 and not part.isdigit() and any(map(str.isdigit, part)))
        for part in re.split("[-_]", text)
    )


def _is_phone(text: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    return 8 <= digits <= 15


_LAST_GROUP = re.compile(r"[ ./()-]+[0-9]+$", re.ASCII)


def _phone_prefix(text: str) -> int:
    """Length without the groups at the end that make it longer than a telephone number; 0 for none."""
    while (group := _LAST_GROUP.search(text)) is not None and not _is_phone(text):
        text = text[: group.start()]
    return len(text) if _is_phone(text) else 0


def _is_public_ip(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    masks = address.version == 4 and (address.is_multicast or address.is_reserved)
    return not (address.is_loopback or address.is_unspecified or masks)


def _is_spanish_id(text: str) -> bool:
    plain = _alphanumerics(text)
    number = {"X": "0", "Y": "1", "Z": "2"}.get(plain[0], plain[0]) + plain[1:-1]
    return plain[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def _is_french_id(text: str) -> bool:
    plain = _alphanumerics(text).replace("2A", "19").replace("2B", "18")
    return len(plain) == 15 and plain.isdigit() and 97 - int(plain[:13]) % 97 == int(plain[13:])


def _is_german_tax_id(text: str) -> bool:
    """Tax number: eleven digits, the last by ISO 7064 MOD 11,10; one of the first ten is there more than once."""
    digits = _alphanumerics(text)
    product = 10
    for digit in digits[:10]:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    return len(set(digits[:10])) in (8, 9) and digits[0] != "0" and (11 - product) % 10 == int(digits[10])


def _is_polish_id(text: str) -> bool:
    month = int(text[2:4]) % 20
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    return 1 <= month <= 12 and 1 <= int(text[4:6]) <= 31 and check_digits.weighted_sum(text, weights) % 10 == 0


def _is_swedish_id(text: str) -> bool:
    digits = _alphanumerics(text)[-10:]
    return 1 <= int(digits[2:4]) <= 12 and 1 <= int(digits[4:6]) % 60 <= 31 and passes_luhn(digits)


def _is_swiss_id(text: str) -> bool:
    return check_digits.weighted_sum(_alphanumerics(text), (1, 3) * 6 + (1,)) % 10 == 0


_ITALIAN_ODD = dict(
    zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True),
) | dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)


def _is_italian_id(text: str) -> bool:
    plain = text.upper()
    total = sum(
        _ITALIAN_ODD[c] if place % 2 == 0 else (int(c) if c.isdigit() else ord(c) - 65)
        for place, c in enumerate(plain[:15])
    )
    return chr(65 + total % 26) == plain[15]


def _is_us_ssn(text: str) -> bool:
    area, group, serial = text[:3], text[4:6], text[7:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


_FRONT = 24
_LONGEST_WORD = 16


@dataclass(frozen=True, slots=True)
class _Shape:
    kind: str
    pattern: re.Pattern[str]
    """Group 1, where there is one, is the match; the text before it is context."""
    is_valid: Callable[[str], bool] | None = None
    needles: tuple[str, ...] = ()
    """Every text with a match contains one of these; empty: unknown."""
    digits: bool = True
    """Whether a match always has a digit."""
    prefix_length: Callable[[str], int] | None = None
    """Returns the length of a valid prefix of an invalid match: the text after it may look like a part of it."""
    lead: re.Pattern[str] | None = None
    """Must match the `_FRONT` characters before a match; checked after the match, which is rare."""
    longest: int = 1000
    """Upper bound of the characters that a match examines, including lookahead."""

    def may_be_in(self, text: str, digits: bool) -> bool:
        """Whether the text can have a match. `digits`: the text has a digit."""
        if self.digits and not digits:
            return False
        return not self.needles or any(needle in text for needle in self.needles)

    def search(self, text: str) -> Iterable[Found]:
        group, is_valid, at, search = 1 if self.pattern.groups else 0, self.is_valid, 0, self.pattern.search
        if len(text) > PIECE:
            search = partial(next_match, self.pattern, longest=self.longest)
        if is_valid is None:
            while (found := search(text, at)) is not None:
                yield Found(found.start(group), found.end(group), self.kind)
                at = found.end()
            return
        while (found := search(text, at)) is not None:
            start, end = found.span(group)
            if self.lead is not None and self.lead.search(text[max(0, start - _FRONT) : start]) is None:
                end = start
            elif not is_valid(text[start:end]):
                end = start + (0 if self.prefix_length is None else self.prefix_length(text[start:end]))
            if end > start:
                yield Found(start, end, self.kind)
            # a match may begin within an invalid one
            at = max(end, found.start() + 1)


def _shape(
    kind: str,
    pattern: str,
    is_valid: Callable[[str], bool] | None = None,
    needles: str = "",
    digits: bool = True,
    prefix_length: Callable[[str], int] | None = None,
    lead: str = "",
    longest: int = 1000,
) -> _Shape:
    front = re.compile(lead, re.ASCII) if lead else None
    made = re.compile(pattern, re.ASCII)
    return _Shape(kind, made, is_valid, tuple(needles.split()), digits, prefix_length, front, longest)


_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_FIRST = r"(?<![A-Za-z0-9].)"
"""Placed after the first character: no letter or digit before it. Searching for a pattern that begins with a character
set is three times as fast as for one that begins with a lookbehind."""
_SHAPES = (
    _shape(
        "private_key",
        r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY-----"
        r"(?:(?!-----END )[\s\S]){0,20000}(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY-----)?",
        needles="-----BEGIN", digits=False, longest=21_000,
    ),
    _shape("groundplan_key", r"(?<![A-Za-z0-9])gp_[A-Za-z0-9_-]{16,200}", needles="gp_", digits=False),
    _shape("aws_key", _START + r"(?:AKIA|ASIA|AGPA|AROA|AIDA|ANPA)[A-Z2-7]{16}" + _END,
           needles="AKIA ASIA AGPA AROA AIDA ANPA", digits=False),
    _shape(
        "aws_key",
        r"(?i:aws_?secret_?(?:access_?)?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
        digits=False,
    ),
    _shape("github_token", _START + r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
           needles="ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", digits=False),
    _shape("api_key", _START + r"(?:sk|rk|pk)[-_](?:[a-z]{2,10}[-_])?[A-Za-z0-9_-]{20,200}", _looks_random,
           needles="sk- sk_ rk- rk_ pk- pk_", digits=False),
    _shape("api_key", _START + r"(?:xox[abeoprs]-[A-Za-z0-9-]{10,200}|AIza[A-Za-z0-9_-]{35})",
           needles="xox AIza", digits=False),
    _shape("api_key", _START + r"glpat-[A-Za-z0-9_-]{20,64}", needles="glpat-", digits=False),
    _shape("api_key", r"(?i:bearer) {1,3}[A-Za-z0-9._~+/-]{20,500}={0,2}", digits=False),
    _shape("jwt", _START + r"eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{4,8000}\.[A-Za-z0-9_-]{8,2000}", needles="eyJ",
           longest=13_000),
    _shape("email", r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}" + _END,
           needles="@", digits=False),
    _shape("iban", r"[A-Z]" + _FIRST + r"[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?" + _END, _is_iban,
           prefix_length=_iban_prefix),
    _shape(
        "card",
        r"[2-6](?<![0-9.-].)(?:(?<=3)(?:[47][0-9]{13}|[0689][0-9]{12})|[0-9]{15}|(?<=[56])[0-9]{16,18})(?![0-9])",
        _is_card,
    ),
    _shape("card", r"[2-6](?<![0-9.-].)[0-9]{3}(?:[ -][0-9]{4}){3}(?: ?[0-9]{3})?(?![0-9])", _is_card),
    _shape("card", r"[2-6](?<![0-9.-].)[0-9]{3}(?:[ -][0-9]{4}){3}(?![0-9])", _is_card),
    _shape("card", r"3(?<![0-9.-].)[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5}(?![0-9])", _is_card),
    _shape("national_id", r"[0-9](?<![0-9-].)[0-9]{2}-[0-9]{2}-[0-9]{4}(?![0-9-])", _is_us_ssn),
    _shape("national_id", r"[XYZ0-9]" + _FIRST + r"(?:(?<=[XYZ])-?|(?<=[0-9]))[0-9]{7}-?[A-Z]" + _END, _is_spanish_id),
    _shape(
        "national_id",
        r"[1-478]" + _FIRST + r" ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}" + _END,
        _is_french_id,
    ),
    _shape("national_id", r"[1-9](?<![0-9].)[0-9] ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}(?![0-9])", _is_german_tax_id),
    _shape("national_id", r"[0-9](?<![0-9].)[0-9]{10}(?![0-9])", _is_polish_id),
    _shape("national_id", r"[0-9](?<![0-9].)(?:(?:(?<=1)9|(?<=2)0)[0-9])?[0-9]{5}[-+][0-9]{4}(?![0-9])",
           _is_swedish_id),
    _shape("national_id", r"7(?<![0-9].)56[. ]?[0-9]{4}[. ]?[0-9]{4}[. ]?[0-9]{2}(?![0-9])", _is_swiss_id),
    _shape(
        "national_id",
        r"[A-Za-z]" + _FIRST + r"(?i:[A-Z]{5}[0-9]{2}[ABCDEHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z])" + _END,
        _is_italian_id,
    ),
    _shape(
        "national_id",
        r"[ABCEGHJ-PRSTW-Z]" + _FIRST + r"(?!(?<=B)G|(?<=G)B|(?<=N)[KT]|(?<=[KT])N|(?<=Z)Z)"
        r"[ABCEGHJ-NPRSTW-Z] ?(?:[0-9]{2} ?){3}[A-D]" + _END,
    ),
    _shape(
        "phone",
        r"[+0](?<![A-Za-z0-9+].)(?:(?<=\+)|(?<=0)0(?<![0-9] 00))[1-9][0-9]{0,2}(?:[ ./()-]{0,2}[0-9]){6,13}(?![0-9])",
        _is_phone,
        prefix_length=_phone_prefix,
    ),
    _shape(
        "phone",
        r"[(0](?<![A-Za-z0-9].)(?<![0-9] .)(?:(?<=\()0[1-9][0-9]{1,4}\)|(?<=0)[1-9][0-9]{1,4})"
        r"[ /-]{1,2}[0-9]{3,8}(?:[ -][0-9]{2,6}){0,3}(?![0-9])",
        _is_phone,
        prefix_length=_phone_prefix,
    ),
    _shape(
        "phone",
        r"[(2-9](?<![A-Za-z0-9-].)(?:(?<=\()[2-9][0-9]{2}\) ?|(?<=[2-9])[0-9]{2}[-.])"
        r"[2-9][0-9]{2}[-.][0-9]{4}(?![0-9-])",
    ),
    # pairs of digits, as in France and Belgium; areas of two digits, as in Japan, Ireland and Australia
    _shape(
        "phone",
        r"[(0](?<![A-Za-z0-9.-].)(?<![0-9] .)(?:(?<=0)[1-9](?:(?: [0-9]{2}){4}|(?:\.[0-9]{2}){4}|(?:-[0-9]{2}){4}"
        r"|[0-9]{1,2}[ /][0-9]{2}(?:(?: [0-9]{2}){2}|(?:\.[0-9]{2}){2}))(?![0-9]|[ .-][0-9]{2}(?![0-9]))"
        r"|(?:(?<=0)[1-9][ -]|(?<=\()0[1-9]\) ?)(?!(?:19|20)[0-9]{2}[ -])"
        r"(?:[0-9]{3,4}[ -][0-9]{4}|[0-9]{3}[ -][0-9]{2,3}[ -][0-9]{2}|[0-9]{8})(?![0-9-]| [0-9]))",
    ),
    # numbers after a word such as "phone"
    _shape(
        "phone",
        r"[(0-9](?<![A-Za-z0-9+(].)(?!(?<=1)9[0-9]{2}-[0-9]{2}-|(?<=2)0[0-9]{2}-[0-9]{2}-)(?:(?<=[0-9])|(?<=\()[0-9])"
        r"(?:[0-9]|[ ./()-]{1,2}(?=[0-9(])){6,24}(?![0-9])",
        _is_phone,
        prefix_length=_phone_prefix,
        lead=r"(?<![A-Za-z])(?i:tel(?:ef(?:on|ono)|ephone)?|t[eé]l(?:[eé]fono|[eé]phone)|phone|mobile?|m[oó]vil|fax|fon"
        r"|handy)[^A-Za-z0-9+(\n]{1,8}\Z",
    ),
    _shape(
        "national_id",
        r"[0-9]" + _FIRST + r"[0-9]{5}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y]" + _END,
        check_digits.is_finnish_id,
    ),
    _shape("national_id", r"[STFGM]" + _FIRST + r"[0-9]{7}[A-Z]" + _END, check_digits.is_singapore_id),
    _shape("national_id", r"[2-9](?<![0-9].)[0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9]| [0-9])",
           check_digits.is_aadhaar),
    _shape("national_id", r"[A-Z]" + _FIRST + r"[A-Z]{2}[ABCFGHJLPT][A-Z][0-9]{4}[A-Z]" + _END),
    _shape("national_id", r"[0-9](?<![0-9].)[0-9]\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}(?![0-9])",
           check_digits.is_belgian_id),
    _shape("national_id", r"[0-9](?<![0-9-].)[0-9]{2} [0-9]{3} [0-9]{4}(?![0-9]| [0-9])", check_digits.is_nhs_number),
    _shape(
        "national_id",
        r"(?i:nhs|national health)[^0-9\n]{1,24}([0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4})(?![0-9])",
        check_digits.is_nhs_number,
    ),
    _shape("national_id", r"(?i:tfn|tax file)[^0-9\n]{1,24}([0-9]{3} ?[0-9]{3} ?[0-9]{3})(?![0-9])",
           check_digits.is_australian_tfn),
    _shape("national_id", r"[BbSs](?i:(?<=b)(?:sn|urgerservicenummer)|(?<=s)ofi)[^0-9\n]{1,24}([0-9]{9})(?![0-9])",
           check_digits.is_dutch_bsn),
    _shape(
        "mac",
        r"[0-9A-Fa-f](?<![A-Za-z0-9:-].)[0-9A-Fa-f](?::(?:[0-9A-Fa-f]{2}:){4}|-(?:[0-9A-Fa-f]{2}-){4})"
        r"[0-9A-Fa-f]{2}(?![A-Za-z0-9:-])",
    ),
    _shape("crypto",
           r"[13b]" + _FIRST + r"(?:(?<=[13])[1-9A-HJ-NP-Za-km-z]{25,34}|(?<=b)c1[02-9ac-hj-np-z]{11,71})" + _END,
           check_digits.is_bitcoin_address),
    _shape("ip", r"[0-9](?<![0-9.].)[0-9]{0,2}\.(?:[0-9]{1,3}\.){2}[0-9]{1,3}(?![0-9]|\.[0-9])", _is_public_ip,
           needles="."),
    _shape(
        "ip",
        r"[0-9A-Fa-f:](?<![A-Za-z0-9:.].)(?:(?<=:)|(?<=[0-9A-Fa-f])[0-9A-Fa-f]{0,3}:)"
        r"(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![A-Za-z0-9:]|\.[0-9])",
        _is_public_ip, needles=":",
    ),
)  # fmt: skip
"""All repetitions are bounded, so that the time for hostile text grows linearly with its length."""
