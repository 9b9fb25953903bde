"""Types of single values in declarations: names, addresses, secrets, values with units, lists that may be one value.

Each is a pydantic annotation that parses the text and carries its JSON Schema. Whole documents are `model`.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from groundplan.catalog import units

_SECRET = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]{0,127}|file:/[^\x00-\x1f]{1,1000}", re.ASCII)
_URL = re.compile(
    r"(?:https?://(?P<authority>[A-Za-z0-9.\-_~\[\]:@%]{1,300})(?:/[A-Za-z0-9.\-_~/%:+]*)?|local:[a-z0-9][a-z0-9-]{0,63})",
    re.ASCII,
)
_EMAIL = re.compile(r"[a-z0-9._%+'\-]{1,64}@[a-z0-9](?:[a-z0-9.\-]{0,252}[a-z0-9])?", re.ASCII)


MOST_TOKENS = 100_000_000
_LONGEST_WAIT_MS = 366 * 86_400_000
_INEXACT = 1e-6


def is_email(text: str) -> bool:
    """Whether `text` (lower case) has the form of an e-mail address."""
    return _EMAIL.fullmatch(text) is not None


def _secret(value: object) -> str:
    if not isinstance(value, str) or not _SECRET.fullmatch(value):
        if isinstance(value, str) and value.startswith("env:"):
            raise ValueError("write env:NAME, with only letters, digits and underscores in the variable's name")
        raise ValueError("a secret is never written here: write env:NAME or file:/path")
    return value


def _url(value: object) -> str:
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write https://HOST/PATH, http://HOST/PATH or local:NAME, without query")
    if match["authority"] and "@" in match["authority"]:
        raise ValueError("a URL must not hold credentials: write key: env:NAME")
    if match["authority"] and not has_host(match[0]):
        raise ValueError("write a host, and a port from 1 to 65535 if any")
    return match[0].rstrip("/")


def _far(url: str) -> str:
    if url.startswith("local:"):
        raise ValueError("write https://HOST/PATH or http://HOST/PATH: local:NAME is of deployments")
    return url


def has_host(url: str) -> bool:
    """Whether a URL has a host, and, if it has a port, one from 1 to 65535."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _email(value: object) -> str:
    if not isinstance(value, str) or not is_email(value.strip().lower()):
        raise ValueError("write an e-mail address like ana@acme.example")
    return value.strip().lower()


def _person(value: object) -> str:
    if isinstance(value, str) and "@" in value:
        return _email(value)
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise ValueError("write an e-mail address, or the name of a person document")
    return value


def _listed(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _relative(value: str) -> str:
    parts = value.replace("\\", "/").split("/")
    if value.startswith(("/", "~")) or ".." in parts or re.match(r"[A-Za-z]:", value):
        raise ValueError("write a path inside the workspace, such as ./handbook")
    return "/".join(part for part in parts if part not in ("", ".")) or "."


def _waited(milliseconds: int) -> int:
    """With 0 nothing would ever be waited for."""
    if not 1 <= milliseconds <= _LONGEST_WAIT_MS:
        raise ValueError("write from 1ms to 366d")
    return milliseconds


def _stepped(share: float) -> float:
    """What is drawn by chance is drawn in steps, and no share is taken for another one."""
    if abs(share * 10_000 - round(share * 10_000)) > _INEXACT:
        raise ValueError("write a percentage in steps of 0.01%")
    return share


def _text(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
_NUMBER: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 0},
    {"type": "string", "pattern": "^[0-9.,]+ ?[kM]?$"},
]

Name = Annotated[str, StringConstraints(pattern=NAME)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@][A-Za-z0-9._:/@-]{0,127}$")]
UPSTREAM_NAME = r"^[A-Za-z0-9@/][A-Za-z0-9._:/@-]{0,127}$"
UpstreamName = Annotated[str, StringConstraints(pattern=UPSTREAM_NAME)]
"""As `ModelName`, or a path: vLLM names a model by the folder that it was loaded from, unless told otherwise."""
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f]+$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9-]{1,9}$")]
"""`EU`, `EEA`, an ISO country such as `NO` or `SE`, or another name in capitals that sites and workloads share."""
Path = Annotated[str, AfterValidator(_relative)]
Email = Annotated[str, BeforeValidator(_email), _text("^[^@ ]+@[^@ ]+$", "ana@acme.example")]
PersonRef = Annotated[str, BeforeValidator(_person), _text("^[a-z0-9._%+'@-]+$", "ana@acme.example")]
Secret = Annotated[str, BeforeValidator(_secret), _text("^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$", "env:AZURE_KEY")]
Url = Annotated[str, BeforeValidator(_url), _text("^(https?://[^@]+|local:[a-z0-9-]+)$", "https://host.example/v1")]
FarUrl = Annotated[Url, AfterValidator(_far), _text("^https?://[^@]+$", "https://host.example/v1")]
"""Of something that does not come with Groundplan."""
Duration = Annotated[int, BeforeValidator(units.duration_ms), _text("^[0-9.]+ ?(ms|s|min|m|h|d|day|days|w)$", "800ms")]
Wait = Annotated[Duration, AfterValidator(_waited)]
"""How long something may take."""
Size = Annotated[int, BeforeValidator(units.size_bytes), _text("^[0-9.]+ ?(B|kB|KB|KiB|MB|MiB|GB|GiB)$", "8 KiB")]
Percent = Annotated[float, BeforeValidator(units.fraction), _text("^[0-9.]+ ?%$", "99.5%")]
Share = Annotated[Percent, AfterValidator(_stepped)]
"""Of what is drawn by chance, in steps of 0.01%."""
Count = Annotated[int, BeforeValidator(units.count), WithJsonSchema({"anyOf": _NUMBER, "examples": ["10k"]})]
Tokens = Annotated[Count, Field(ge=1, le=MOST_TOKENS)]
"""Of one call or a part of it: what they cost at most is a number that a call's record can hold."""
TokensPerByte = Annotated[
    float,
    BeforeValidator(units.tokens_per_byte),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100, "examples": [1.5]}),
]
Unlimited = Annotated[
    int | None,
    BeforeValidator(units.count_or_unlimited),
    WithJsonSchema({"anyOf": [*_NUMBER, {"const": "unlimited"}], "examples": ["unlimited"]}),
]
Frequency = Annotated[
    units.Frequency, BeforeValidator(units.frequency), _text("^[0-9.,]+[kM]?/(hour|day|week|month)$", "2000/day")
]
Limit = Annotated[
    units.Limit,
    BeforeValidator(units.limit),
    _text("^[0-9.]+ USD/(day|week|month|quarter|year|total)$", "200 USD/month"),
]
Usd = Annotated[int, BeforeValidator(units.usd), _text("^[0-9.]+ USD$", "0.50 USD")]
TokenPrice = Annotated[int, BeforeValidator(units.token_price), _text("^[0-9.]+ [A-Z]{3}/[Mk]tok$", "0.40 USD/Mtok")]
Amount = Annotated[int, BeforeValidator(units.amount), _text("^[0-9.]+ [A-Z]{3}$", "0.50 USD")]
"""As `Usd`, where the document around it may name another currency."""
CostAmount = Annotated[int, BeforeValidator(units.cost_amount), _text("^[0-9.]+ [A-Z]{3}$", "0.50 USD")]
"""The same of a cost beside the calls."""
PeriodAmount = Annotated[
    units.Limit,
    BeforeValidator(units.periodic_cost),
    _text("^[0-9.]+ [A-Z]{3}/(day|week|month|quarter|year)$", "120 USD/month"),
]
DayWindow = Annotated[
    tuple[int, int],
    BeforeValidator(units.day_window),
    _text("^[0-9]{2}:[0-9]{2} ?- ?[0-9]{2}:[0-9]{2}$", "16:30-00:30"),
]
Date = Annotated[date, BeforeValidator(units.iso_date), _text("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "2026-01-31")]

LIST = BeforeValidator(_listed)


def list_schema(item: dict[str, Any]) -> WithJsonSchema:
    """Schema of one item, or a list of them."""
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item}]})


def _rates_schema(pattern: str, example: str) -> WithJsonSchema:
    return list_schema({"type": "string", "pattern": pattern, "examples": [example]})


UseRates = Annotated[
    tuple[units.Rate, ...],
    BeforeValidator(units.use_rates),
    _rates_schema("^[0-9.,]+[kM]?/(minute|hour|day|month)$", "600/minute"),
]
MoneyRates = Annotated[
    tuple[units.Rate, ...],
    BeforeValidator(units.money_rates),
    _rates_schema("^[0-9.]+ USD/(minute|hour|day|month)$", "5 USD/day"),
]
Starts = Annotated[
    str,
    BeforeValidator(units.starts_text),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "examples": ["04-01", "monday", 15]}),
]

Names = Annotated[tuple[Name, ...], LIST, list_schema({"type": "string", "pattern": NAME})]
Networks = Annotated[
    tuple[Annotated[str, BeforeValidator(units.network)], ...],
    LIST,
    list_schema({"type": "string", "examples": ["10.0.0.0/8"]}),
]
Lines = Annotated[tuple[Line, ...], LIST, list_schema({"type": "string"})]
Aliases = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")], ...],
    LIST,
    list_schema({"type": "string", "examples": ["gpt-4.1"]}),
]
People = Annotated[tuple[PersonRef, ...], LIST, list_schema({"type": "string", "examples": ["ana@acme.example"]})]
Jurisdictions = Annotated[tuple[Jurisdiction, ...], LIST, list_schema({"type": "string", "examples": ["EU"]})]
