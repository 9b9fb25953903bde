"""`init`: a first workspace, commented, with one workload on what the user already has; it passes `check` offline.

Writes files only; it contacts no upstream and reads no secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from groundplan.catalog import units, well_known
from groundplan.catalog.check import validate_files
from groundplan.catalog.fields import is_email
from groundplan.catalog.imports.providers import host_of, is_private, jurisdiction_of, processing_region
from groundplan.catalog.well_known import Upstream
from groundplan.core.errors import Conflict, Invalid, Problem
from groundplan.core.home import write_files
from groundplan.core.money import format_usd, parse_usd

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_OPERATOR = "you@company.example"
DEFAULT_BUDGET = "20 USD/month"


def init(
    folder: Path,
    *,
    upstream: str | None = None,
    upstream_model: str | None = None,
    upstream_key: str | None = None,
    price: str | None = None,
    budget: str | None = None,
    operator_email: str | None = None,
    known_price: Callable[[str], bool] | None = None,
    known_context: Callable[[str], int | None] = lambda _: None,
) -> tuple[Path, ...]:
    """Write a workspace with the workload `assistant` into an empty or new folder; returns the files.

    `upstream` is the base URL of an OpenAI-compatible API, or of a provider that is known by it, and needs
    `upstream_model`; `price` is "IN/OUT" in USD per million tokens, or "free", and needed where `known_price` says no;
    `budget` is "20", "20 USD" (a month) or "20 USD/month"; `known_context` says how many tokens fit a model.

    Raises `Conflict` where the folder holds anything, `Invalid` where an option is wrong.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not empty", code="folder_not_empty", hint="Name a new or an empty folder.")
    email = (operator_email or DEFAULT_OPERATOR).strip().lower()
    if not is_email(email):
        raise Invalid("the operator is not an e-mail address", code="email_syntax", hint="Write you@company.example.")
    if upstream is not None:
        site, deployment = _served(upstream, upstream_model, upstream_key, price, known_price, known_context)
    elif upstream_model or upstream_key or price:
        hint = "Add --upstream https://HOST/v1."
        raise Invalid("a model, key or price needs an address", code="upstream_missing", hint=hint)
    else:
        site, deployment = _PRIVATE_SITE, _EMBEDDED
    files = {
        "groundplan.yaml": _COMPANY.format(email=email, site=site, deployment=deployment),
        "assistant.yaml": _ASSISTANT.format(email=email, budget=_budget(budget)),
    }
    try:
        validate_files(files, known_price=known_price)
    except Invalid as error:
        raise _of_options(error, files) from error
    write_files(folder, files)
    return tuple(folder / name for name in files)


def _served(
    upstream: str,
    name: str | None,
    key: str | None,
    price: str | None,
    known_price: Callable[[str], bool] | None,
    known_context: Callable[[str], int | None],
) -> tuple[str, str]:
    """(site, deployment) of the model `name` at an address, as YAML. Raises `Invalid`."""
    if name is None:
        raise Invalid("an upstream needs a model", code="model_missing", hint="Add --upstream-model NAME.")
    at = well_known.recognize_upstream(upstream)
    model = at.listed_name(name)
    if price is None and known_price is not None and not known_price(model):
        raise Invalid(
            f"there is no price for {model[:128]}",
            code="price_missing",
            hint="Add --price IN/OUT in USD per million tokens, such as 0.40/1.60, or --price free.",
        )
    there = processing_region(at.api, name, None)
    law = jurisdiction_of(there) if there is not None else at.jurisdiction
    return _site(replace(at, jurisdiction=law)), _deployment(at, name, key, _price(price), known_context(model))


_OPTIONS = {
    "url": "--upstream", "key": "--upstream-key", "model": "--upstream-model", "upstream_model": "--upstream-model",
    "price": "--price", "limit": "--budget",
}  # fmt: skip
"""Key of the YAML that is written -> the option that its value came from."""


def _of_options(error: Invalid, files: dict[str, str]) -> Invalid:
    """The same problems, told of the options: the files that they are in were not written."""
    problems: dict[str, Problem] = {}
    for problem in error.problems:
        key = ""
        if problem.where is not None:
            key = files[problem.where.file].splitlines()[problem.where.line - 1].partition(":")[0]
        option = _OPTIONS.get(key)
        if option is None:
            return error
        message = f"{option} cannot be used: {problem.message}"
        problems.setdefault(f"{option} {problem.hint}", Problem(message, problem.code, problem.hint))
    told = tuple(problems.values())
    return Invalid(told[0].message, code=told[0].code, hint=told[0].hint, problems=told) if told else error


def _budget(text: str | None) -> str:
    value = (text or DEFAULT_BUDGET).strip()
    amount, _, period = value.partition("/")
    try:
        return str(units.limit(f"{format_usd(parse_usd(amount))} USD/{period or 'month'}"))
    except ValueError as error:
        raise Invalid("the budget cannot be read", code="money_syntax", hint=f"{error}.") from error


def _price(text: str | None) -> str:
    """YAML of a price, or a comment where the price list is asked."""
    if text is None:
        return "# price: {input: 0.40 USD/Mtok, output: 1.60 USD/Mtok}   # where the built-in price list has none"
    if text.strip() == "free":
        return "price: free"
    given, separator, generated = text.partition("/")
    if not separator:
        raise Invalid(
            "a price has two parts",
            code="price_syntax",
            hint="Write IN/OUT in USD per million tokens, such as 0.40/1.60.",
        )
    prices = (format_usd(parse_usd(part)).rstrip("0").rstrip(".") for part in (given, generated))
    return "price: {{input: {} USD/Mtok, output: {} USD/Mtok}}".format(*prices)


def _site(at: Upstream) -> str:
    """Where the server is, as far as its address says."""
    host = host_of(at.url)
    if host and is_private(host):
        return _PRIVATE_SITE
    return _CLOUD_SITE.format(law=f"jurisdiction: {at.jurisdiction or 'US'}".ljust(32))


def _deployment(at: Upstream, model: str, key: str | None, price: str, context: int | None) -> str:
    named = key or (f"env:{at.key}" if at.key else None)
    if named is not None:
        secret = f"key: {_quoted(named)}"
    elif at.ambient:
        secret = "# key: env:API_KEY             # left out: the credentials of the machine"
    else:
        secret = "# key: env:API_KEY             # a reference, never the secret"
    spoken = f"api: {at.api}".ljust(32) + _SPEAKS if at.api != "openai" else ""
    fits = "context: 128k                    # most tokens of prompt and answer together"
    return _UPSTREAM.format(
        url=_quoted(at.url),
        model=_quoted(at.listed_name(model)),
        own=_quoted(at.own_name(model)),
        api=f"{spoken}\n" if spoken else "",
        key=secret,
        price=price,
        context=fits if context is None else fits.replace("128k                 ", f"{context}".ljust(21)),
    )


def _quoted(value: str) -> str:
    """As YAML: plain where that is safe."""
    return value if re.fullmatch(r"[A-Za-z][\w.:/-]*[\w/]", value, re.ASCII) else json.dumps(value)


_SPEAKS = "# its own API; chat to it needs: pip install 'groundplan[providers]'"

_COMPANY = """\
# What this company declares. Check it offline with: groundplan check
# One kind per document, documents are separated by ---. Everything else that can be said: docs/workspace.md
kind: company
name: my-company
format: 1
separation: solo                 # you alone; write `enforced` once a second person signs in
caps: {{people: unlimited, calls_per_day: unlimited}}   # of experiments and pilots; the budget is the limit that counts
owners:                          # who answers for what; one person may hold every duty
  business: {email}
  product: {email}
  architecture: {email}
  engineering: {email}
  operations: {email}
  security: {email}
  finance: {email}
  data: {email}
  compliance: {email}
---
# A site is a place where models run: type cloud, private or edge, and whose law holds there.
{site}---
# A deployment is a model served at a site, through an OpenAI-compatible API unless `api` says another one.
{deployment}"""

_PRIVATE_SITE = """\
kind: site
name: here
type: private
jurisdiction: EU                 # EU, US, CH ... or an ISO country
"""

_CLOUD_SITE = """\
kind: site
name: here
type: cloud
{law} # where the provider processes your data: EU, US ... or an ISO country
"""

_EMBEDDED = f"""\
kind: deployment
name: main
site: here
model: {DEFAULT_MODEL}
url: local:embedded              # the small model that comes with Groundplan; replace it by https://HOST/v1
price: free
context: 4096
max_output: 1024
"""

_UPSTREAM = """\
kind: deployment
name: main
site: here
model: {model}
upstream_model: {own}
url: {url}
{api}{key}
{price}
{context}
# accepts: [image]               # images in messages; `image_tokens: 2500` says the most that one counts
"""

_ASSISTANT = """\
# A workload is what you ask of AI: its purpose, stage and needs, never a place.
kind: workload
name: assistant
purpose: Answer questions of my colleagues
audience: employees              # employees | customers | public
stage: pilot                     # proposed | experiment | pilot | production | retired
sensitivity: internal            # public | internal | confidential | restricted
owners:
  business: {email}
# residency: [EU]                # refuse to send its data anywhere else
# sources: [handbook]            # answer from governed documents: declare kind: source first
# limits: {{max_output: 4096}}     # tokens of an answer; 1024 unless said
# fallbacks: [other]             # a deployment that takes over when the first one fails
---
# A budget is a hard limit: a call that could exceed it is refused.
kind: budget
name: assistant
covers: workload/assistant
limit: {budget}
"""
