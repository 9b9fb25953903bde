"""`init`: writes a first, commented workspace with one workload on a model that the user already has. The workspace
passes `check` offline.

It only writes files: it contacts no upstream and reads no secret.
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
from groundplan.core.money import Picodollars, format_usd, parse_usd

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

    `upstream` is the base URL of an OpenAI-compatible API, or of a provider recognized by it, and needs
    `upstream_model`. `price` is "IN/OUT" in USD per million tokens, or "free"; it is required if `known_price` is False
    for the model. `budget` is "20", "20 USD" (a month) or "20 USD/month". `known_context` returns the context length of
    a model in tokens, if known.

    Raises `Conflict` if the folder is not empty, `Invalid` if an option is wrong.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not empty", code="folder_not_empty", hint="Name a new or an empty folder.")
    email = (operator_email or DEFAULT_OPERATOR).strip().lower()
    if not is_email(email):
        raise Invalid("the operator is not an e-mail address", code="email_syntax", hint="Write you@company.example.")
    if upstream is not None:
        site, deployment = _site_and_deployment(
            upstream, upstream_model, upstream_key, price, known_price, known_context
        )
    elif upstream_model or upstream_key or price:
        hint = "Add --upstream https://HOST/v1."
        raise Invalid("a model, key or price needs an address", code="upstream_missing", hint=hint)
    else:
        site, deployment = _PRIVATE_SITE, _EMBEDDED_DEPLOYMENT
    files = {
        "groundplan.yaml": _COMPANY_TEMPLATE.format(email=email, site=site, deployment=deployment),
        "assistant.yaml": _ASSISTANT_TEMPLATE.format(email=email, budget=_budget_yaml(budget)),
    }
    try:
        validate_files(files, known_price=known_price)
    except Invalid as error:
        raise _name_options(error, files) from error
    write_files(folder, files)
    return tuple(folder / name for name in files)


def _site_and_deployment(
    upstream: str,
    model_name: str | None,
    key: str | None,
    price: str | None,
    known_price: Callable[[str], bool] | None,
    known_context: Callable[[str], int | None],
) -> tuple[str, str]:
    """(site, deployment) as YAML, for a model at an upstream's address. Raises `Invalid`."""
    if model_name is None:
        raise Invalid("an upstream needs a model", code="model_missing", hint="Add --upstream-model NAME.")
    endpoint = well_known.recognize_upstream(upstream)
    model = endpoint.listed_name(model_name)
    if price is None and known_price is not None and not known_price(model):
        raise Invalid(
            f"there is no price for {model[:128]}",
            code="price_missing",
            hint="Add --price IN/OUT in USD per million tokens, such as 0.40/1.60, or --price free.",
        )
    region = processing_region(endpoint.api, model_name, None)
    jurisdiction = jurisdiction_of(region) if region is not None else endpoint.jurisdiction
    return _site_yaml(replace(endpoint, jurisdiction=jurisdiction)), _deployment_yaml(
        endpoint, model_name, key, _price_yaml(price), known_context(model)
    )


_OPTION_OF_KEY = {
    "url": "--upstream", "key": "--upstream-key", "model": "--upstream-model", "upstream_model": "--upstream-model",
    "price": "--price", "limit": "--budget",
}  # fmt: skip
"""Key of the YAML that would be written -> the option that its value came from."""


def _name_options(error: Invalid, files: dict[str, str]) -> Invalid:
    """The same problems, as problems of the options instead of the files, which were not written."""
    problems: dict[str, Problem] = {}
    for problem in error.problems:
        key = ""
        if problem.where is not None:
            key = files[problem.where.file].splitlines()[problem.where.line - 1].partition(":")[0]
        option = _OPTION_OF_KEY.get(key)
        if option is None:
            return error
        message = f"{option} cannot be used: {problem.message}"
        problems.setdefault(f"{option} {problem.hint}", Problem(message, problem.code, problem.hint))
    as_options = tuple(problems.values())
    return (
        Invalid(as_options[0].message, code=as_options[0].code, hint=as_options[0].hint, problems=as_options)
        if as_options
        else error
    )


def _budget_yaml(text: str | None) -> str:
    value = (text or DEFAULT_BUDGET).strip()
    amount, _, period = value.partition("/")
    hint = "Write an amount in USD for a month, such as 50 or 12.50, or for another period: 5/day."
    try:
        return str(units.limit(f"{format_usd(_amount('--budget', amount, hint))} USD/{period or 'month'}"))
    except ValueError as error:
        raise Invalid("the budget cannot be read", code="money_syntax", hint=f"{error}.") from error


def _amount(option: str, text: str, hint: str) -> Picodollars:
    """An amount of an option. Raises `Invalid` with that hint."""
    try:
        return parse_usd(text)
    except Invalid as error:
        raise Invalid(f"{option}: {error.message}", code=error.code, hint=hint) from error


def _price_yaml(text: str | None) -> str:
    """YAML of a price; a comment if the price list has the model."""
    if text is None:
        return "# price: {input: 0.40 USD/Mtok, output: 1.60 USD/Mtok}   # where the built-in price list has none"
    if text.strip() == "free":
        return "price: free"
    input_price, separator, output_price = text.partition("/")
    hint = "Write IN/OUT in USD per million tokens, such as 0.40/1.60, or free."
    if not separator:
        raise Invalid("a price has two parts", code="price_syntax", hint=hint)
    amounts = (_amount("--price", part, hint) for part in (input_price, output_price))
    prices = (format_usd(amount).rstrip("0").rstrip(".") for amount in amounts)
    return "price: {{input: {} USD/Mtok, output: {} USD/Mtok}}".format(*prices)


def _site_yaml(endpoint: Upstream) -> str:
    """YAML of the site of an upstream: private if its address is."""
    host = host_of(endpoint.url)
    if host and is_private(host):
        return _PRIVATE_SITE
    return _CLOUD_SITE_TEMPLATE.format(law=f"jurisdiction: {endpoint.jurisdiction or 'US'}".ljust(32))


def _deployment_yaml(endpoint: Upstream, model: str, key: str | None, price: str, context: int | None) -> str:
    key_reference = key or (f"env:{endpoint.key}" if endpoint.key else None)
    if key_reference is not None:
        key_line = f"key: {_yaml_scalar(key_reference)}"
    elif endpoint.ambient:
        key_line = "# key: env:API_KEY             # left out: the credentials of the machine"
    else:
        key_line = "# key: env:API_KEY             # a reference, never the secret"
    api_line = f"api: {endpoint.api}".ljust(32) + _API_NOTE if endpoint.api != "openai" else ""
    context_line = "context: 128k                    # most tokens of prompt and answer together"
    return _UPSTREAM_TEMPLATE.format(
        url=_yaml_scalar(endpoint.url),
        model=_yaml_scalar(endpoint.listed_name(model)),
        own=_yaml_scalar(endpoint.own_name(model)),
        api=f"{api_line}\n" if api_line else "",
        key=key_line,
        price=price,
        context=context_line
        if context is None
        else context_line.replace("128k                 ", f"{context}".ljust(21)),
    )


def _yaml_scalar(value: str) -> str:
    """A text as a YAML scalar: plain if that is safe, else quoted."""
    return value if re.fullmatch(r"[A-Za-z][\w.:/-]*[\w/]", value, re.ASCII) else json.dumps(value)


_API_NOTE = "# its own API; chat to it needs: pip install 'groundplan[providers]'"

_COMPANY_TEMPLATE = """\
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

_CLOUD_SITE_TEMPLATE = """\
kind: site
name: here
type: cloud
{law} # where the provider processes your data: EU, US ... or an ISO country
"""

_EMBEDDED_DEPLOYMENT = f"""\
kind: deployment
name: main
site: here
model: {DEFAULT_MODEL}
url: local:embedded              # the small model that comes with Groundplan; replace it by https://HOST/v1
price: free
context: 4096
max_output: 1024
"""

_UPSTREAM_TEMPLATE = """\
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

_ASSISTANT_TEMPLATE = """\
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
