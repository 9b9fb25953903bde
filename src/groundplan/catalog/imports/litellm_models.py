"""One entry of LiteLLM's `model_list` -> one deployment with its findings, or only the reason why it cannot be one.

`litellm` joins entries of the same name in a workload; addresses are read by `litellm_entry_address`, sizes, times and
rates by `litellm_numbers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, get_args

from groundplan.catalog.fields import UPSTREAM_NAME
from groundplan.catalog.imports import litellm_addresses as addresses
from groundplan.catalog.imports import litellm_prices, litellm_settings, litellm_units
from groundplan.catalog.imports.litellm_credentials import PLACEHOLDERS, join_credential
from groundplan.catalog.imports.litellm_entry_address import REGION_KEYS, AddressReader, address_node
from groundplan.catalog.imports.litellm_findings import REPLACE_SECRET, is_secret, secrets_below, setting_finding
from groundplan.catalog.imports.litellm_numbers import Numbers
from groundplan.catalog.imports.litellm_variables import Variables
from groundplan.catalog.imports.naming import one_line, slug, unique
from groundplan.catalog.imports.node import Node
from groundplan.catalog.imports.providers import (
    PROVIDERS,
    UNKNOWN,
    Provider,
    host_of,
    is_private,
    jurisdiction_of,
    processing_region,
    split_model_name,
    supported_apis,
)
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NEEDED, NO_EQUAL, NO_PRICE, SECRET, Finding
from groundplan.catalog.model import DeploymentDoc
from groundplan.catalog.rules.kinds import has_unsupported_api, supports_embeddings

TYPES = {
    "chat": "chat", "completion": "chat", "responses": "chat", "batch": "chat", "embedding": "embeddings",
    "image_generation": "images", "audio_speech": "speech", "audio_transcription": "transcription", "rerank": "rerank",
    "moderation": "moderation", "realtime": "realtime", "image_edit": "images",
}  # fmt: skip
"""LiteLLM's mode -> type of a deployment."""
_MODE_PATTERNS = (
    (r"realtime", "realtime"), (r"rerank", "rerank"), (r"embed|\b(?:bge|e5|gte)-|voyage-", "embedding"),
    (r"whisper|transcribe", "audio_transcription"), (r"\btts\b", "audio_speech"),
    (r"dall-e|gpt-image|\bimagen\b|\bflux\b|stable-diffusion", "image_generation"), (r"moderation", "moderation"),
    (r"\bveo-\d|\bsora-\d|video-generation", "video_generation"),
)  # fmt: skip
"""Pattern in a model's name -> LiteLLM's mode; the first match counts."""
_MODEL_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@-]{0,127}", re.ASCII)
_RESPONSES_ALONE = re.compile(r"(?:o\d+|gpt-[\d.]+)-pro\b|(?:gpt-[\d.]+-)?codex|o\d[\w-]*-deep-research|computer-use")
"""OpenAI's models that only the responses API serves: platform.openai.com/docs/models"""
_ROUTER = "auto_router/"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_HANDLED_PARAMS = frozenset(
    {"model", "api_base", "base_url", "api_key", "custom_llm_provider", "timeout", "stream_timeout", "num_retries",
     "max_retries", "max_tokens", "rpm", "tpm", "max_parallel_requests", "weight", "max_budget", "budget_duration",
     "max_completion_tokens", "max_input_tokens", "max_output_tokens", "order", "tags", "litellm_credential_name",
     "aws_bedrock_runtime_endpoint", *REGION_KEYS}
)  # fmt: skip
_RATES = ("rpm", "tpm")
_HANDLED_INFO = frozenset({"max_tokens", "max_input_tokens", "max_output_tokens", *_RATES})
"""Keys of `model_info` that are handled."""
_ENTRY_KEYS = frozenset({"model_name", "litellm_params", "model_info", "rpm", "tpm", "max_parallel_requests"})
ALLOWED_TYPES = frozenset(get_args(DeploymentDoc.model_fields["type"].annotation))


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of the import, in addition to the file."""

    known_price: Callable[[str], bool]
    """Whether the price list knows a model by its canonical name."""
    known_context: Callable[[str], bool] = lambda _: False
    """Whether the price list knows the context of a model."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Model name as in the file -> e-mail of its owner; `` stands for all others."""
    prices: Mapping[str, str] = field(default_factory=dict)
    """Model name as in the file -> `0.40/1.60` (USD per million tokens, in and out), `0.006/minute` (or by another
    unit) or `free`."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Values of environment variables that hold an address, a number or a model."""
    budget: str | None = None
    """Limit of each workload, such as `200 USD/month`."""
    company: str = "imported"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the list after parsing."""

    group: str
    """`model_name`: what callers write as `model`."""
    node: Node
    name: str
    """Name of the deployment."""
    type: str
    order: int
    site: dict[str, str] | None
    body: dict[str, Any]
    """The deployment as far as it is known."""
    missing: tuple[str, ...]
    """What it lacks to be callable; empty: nothing."""
    deadline_ms: int | None
    attempts: int | None
    max_output: int | None
    weight: Decimal | None
    limit: dict[str, Any]
    """Fields of a `limit` for this deployment; empty: none."""
    id: str | None = None
    """`model_info.id`, by which fallbacks may refer to it."""


class EntryReader:
    """Reads entries one after another, so that their names are unique, and collects findings."""

    def __init__(
        self,
        asked: ImportOptions,
        variables: Mapping[str, Node],
        findings: list[Finding],
        credentials: Mapping[str, Node] = MappingProxyType({}),
    ) -> None:
        self._asked = asked
        self._variables = Variables(asked.values, variables)
        self._findings = findings
        self._addresses = AddressReader(self._variables, findings)
        self._credentials = credentials
        self._numbers = Numbers(findings)
        self._names: set[str] = set()
        self._unsure: set[str] = set()

    def read(self, node: Node) -> Entry | None:
        """The entry, or None if it cannot become a deployment, with a finding."""
        params = node.get("litellm_params")
        model = params.get("model") if params else None
        group_node = node.get("model_name") or model
        group = group_node.text() if group_node else None
        name = self._variables.resolve(model) if model else None
        if model is not None and model.variable is not None and name is None:
            self._report(NEEDED, "model", "which model it is stands in a variable: left out",
                         f"Say --set {model.variable}=PROVIDER/NAME.", model)  # fmt: skip
            self._report_secrets(params, node.get("model_info"))
            return None
        if params is None or model is None or not name or not group:
            node.add_problem("a model: model_name and litellm_params with model")
            return None
        if "*" in name or "*" in group:
            self._report(NO_EQUAL, "wildcard model", "every model that may be called is declared, with its price",
                         "Declare kind: deployment for each model that you use.", model)  # fmt: skip
            self._report_secrets(params, node.get("model_info"))
            return None
        if name.startswith(_ROUTER):
            self._report(NO_EQUAL, "model", "a router is no model: `auto` chooses among deployments of a workload",
                         "Name its deployments at one workload, with routing:.", model)  # fmt: skip
            self._report_secrets(params, node.get("model_info"))
            return None
        params = join_credential(params, self._credentials, self._findings)
        return self._entry(node, params, model, group, name)

    def _entry(self, node: Node, params: Node, model: Node, group: str, name: str) -> Entry:
        info = node.get("model_info")
        named = params.get("custom_llm_provider")
        provider_name, upstream = split_model_name(
            name, self._addresses.provider_name(params), (named.text() if named else None) or None
        )
        provider = addresses.provider_of(provider_name, upstream)
        region, upstream = addresses.split_region(provider.api, upstream)
        missing: list[str] = []
        if (blocked := info.get("blocked") if info else None) is not None and blocked.value is True:
            missing.append("an end of its pause: LiteLLM has it blocked")
        profile = self._inference_profile(params, provider, missing)
        region = self._addresses.region(params) or region or addresses.split_region(provider.api, profile or "")[0]
        region = region or self._addresses.part(params, addresses.REGIONS.get(provider.api or "", addresses.NO_PART))
        base = params.get("base_model") or (info.get("base_model") if info else None)
        own = group if provider_name == "azure" else ""  # names of Azure's deployments say nothing of their model
        kind = self._deployment_type(info, (name, (base.text() if base else None) or "", own), model, missing)
        place = addresses.Place(provider, provider_name, region)
        url, private = self._addresses.url(params, place, kind, missing, model)
        upstream = addresses.requested_name(provider_name, upstream, url, kind)
        upstream, serves = self._served_apis(provider_name, upstream, info, model, at_home=private)
        body: dict[str, Any] = {"kind": "deployment", "name": unique(slug(f"{group}-{provider_name}"), self._names)}
        if slug(group) != group:
            body["title"] = one_line(group)
        canonical = self._canonical_name(provider, provider_name, upstream, base, url=url, private=private)
        there = processing_region(provider.api, upstream, processing_region(provider.api, profile or "", region))
        upstream = profile or upstream
        body |= {"site": "", "model": canonical, "url": url or "https://HOST/v1"}
        body |= self._key_field(params, provider, body["name"], private)
        if re.fullmatch(UPSTREAM_NAME, upstream) and _MODEL_NAME.fullmatch(canonical):
            body["upstream_model"] = upstream
        else:
            missing.append("a model name of letters, digits and . _ : / @ -")
        body |= {"type": kind} if kind != "chat" else {"serves": serves} if serves else {}
        body |= self._api_field(provider, upstream, kind, model, missing)
        body |= self._price_field(group, params, info, canonical, model, missing, kind=kind)
        if (
            provider.api == "bedrock"
            and not {"price", "a price"} & {*body, *missing}
            and jurisdiction_of(region or "") != "US"
        ):
            here = "the list has Bedrock's price in the United States, where it knows none of the region"
            self._report(CHANGED, "price", here, "Write price: as the region has it, which may be a third more.", model)
        body |= self._numbers.size_fields(params, info)
        body |= self._cost_bounds(group, body, kind, model, missing)
        rates = self._numbers.limit_fields(info, _RATES) if info else {}
        limit = rates | self._numbers.limit_fields(params) | self._numbers.limit_fields(node)
        self._report_unknown_keys(node)
        site = self._site(provider_name, there, url, private, model)
        self._report_others(params, info)
        mark = info.get("id") if info else None
        numbers = self._numbers
        return Entry(
            group, node, body["name"], kind, int(numbers.number(params, "order") or 0), site, body, tuple(missing),
            numbers.milliseconds(params, "timeout"), numbers.attempts(params), numbers.max_output(params),
            numbers.number(params, "weight"), limit, mark.text() if mark is not None else None,
        )  # fmt: skip

    def _report(self, state: str, what: str, here: str, todo: str, node: Node) -> None:
        self._findings.append(Finding(state, what, here, todo, node.where))

    def _report_unknown_keys(self, node: Node) -> None:
        """Report what stands beside the known keys of an entry, with the secrets in it."""
        for key, value in node.items():
            if key not in _ENTRY_KEYS and not value.is_empty:
                self._findings.append(
                    setting_finding(f"model_list.{one_line(key)}", key, litellm_settings.UNKNOWN, value)
                )
                self._findings.extend(secrets_below(f"model_list.{one_line(key)}", value))

    def _report_secrets(self, params: Node | None, info: Node | None) -> None:
        """Report literal secrets in an entry that is not imported."""
        for part in (params, info):
            for key, node in part.items() if part else ():
                if is_secret(key, node):
                    self._report(SECRET, one_line(key), "a literal key: not copied", REPLACE_SECRET, node)
                else:
                    self._findings.extend(secrets_below(one_line(key), node))

    def _deployment_type(self, info: Node | None, names: Iterable[str], model: Node, missing: list[str]) -> str:
        """The deployment's type: by `mode`, else by the first of `names` with a known pattern."""
        node = info.get("mode") if info else None
        mode = node.text() if node else None
        if mode is None:
            guesses = (guess for each in names for words, guess in _MODE_PATTERNS if re.search(words, each.lower()))
            mode = next(guesses, "chat")
        found = TYPES.get(mode)
        if found is None or found not in ALLOWED_TYPES:
            missing.append(f"a type of deployment for {one_line(mode)[:40]}")
            self._report(NO_EQUAL, "model_info.mode", "no deployment is of this type",
                         "Calls of this kind go to the provider directly.", node or model)  # fmt: skip
            return "chat"
        if node is None and found != "chat":
            self._report(
                CHANGED, "model_info.mode", f"taken as type: {found} by its name", "Correct it if wrong.", model
            )
        return found

    def _served_apis(
        self, provider: str, name: str, info: Node | None, model: Node, *, at_home: bool
    ) -> tuple[str, list[str]]:
        """(model's name without its API prefix, APIs other than chat that serve it)"""
        if provider == "text-completion-openai":
            return name, ["completions"]
        mode = info.get("mode") if info else None
        bare = name.removeprefix("responses/") if provider in ("openai", "azure") else name
        alone = provider == "azure" or (provider == "openai" and not at_home)
        alone = alone and _RESPONSES_ALONE.match(name) is not None
        if bare == name and not alone and (mode is None or mode.text() != "responses"):
            return name, ["responses"] if provider == "openai" and not at_home else []
        self._report(CHANGED, "model", "serves: [responses] of the deployment: it is asked by /v1/responses as it is",
                     "Callers of chat completions ask by responses, where it has nothing else.", model)  # fmt: skip
        return bare, ["responses"]

    def _inference_profile(self, params: Node, provider: Provider, missing: list[str]) -> str | None:
        """Bedrock's inference profile that is requested in place of the model."""
        node = params.get("model_id") if provider.api == "bedrock" else None
        found = self._variables.resolve(node) if node is not None else None
        if node is not None and found is None:
            missing.append("its inference profile")
            self._report(NEEDED, "model_id", "which inference profile it is stands in a variable",
                         f"Say --set {node.variable}=ARN.", node)  # fmt: skip
        return found

    def _canonical_name(
        self, provider: Provider, name: str, upstream: str, base: Node | None, *, url: str | None, private: bool
    ) -> str:
        """The model's name in the price list if it is there, else a name that no list has."""
        bare = (split_model_name(base.text() or "")[1] if base else upstream).lstrip("/")
        public = provider.prices is not None and not (private and provider.url is not None)
        prefixes = (provider.prices, "openai") if provider.prices == "azure" else (provider.prices,)
        if private and (other := addresses.provider_by_url(url or "")) is not None:
            public, prefixes = True, (PROVIDERS[other].prices,)  # it takes its own price, by whatever client
        for prefix in prefixes if public or base else ():
            candidate = f"{prefix}/{bare}"
            if prefix and _MODEL_NAME.fullmatch(candidate) and self._asked.known_price(candidate):
                return candidate
        last = f"own/{bare.replace('/', '-')}"  # a list finds `.../openai/gpt-oss-120b` whatever stands before it
        return next((
            each for each in (f"{name.replace('_', '-')}/{bare}", f"own/{bare}") if not self._asked.known_price(each)
        ), last)  # fmt: skip

    def _key_field(self, params: Node, provider: Provider, name: str, private: bool) -> dict[str, str]:
        node = params.get("api_key")
        if provider.api == "vertexai":
            if node is not None:
                state = SECRET if node.variable is None else CHANGED
                self._report(state, "api_key", litellm_settings.MACHINE, litellm_settings.GOOGLE, node)
            return {}
        if node is None:
            # else it is sent elsewhere
            own = not private or provider.prices == "azure" or address_node(params) is None
            return {"key": f"env:{provider.key}"} if provider.key and own else {}
        variable = node.variable
        if variable is not None and _VARIABLE.fullmatch(variable):
            self._report(CARRIED, "api_key", f"key: env:{variable}", "", node)
            return {"key": f"env:{variable}"}
        if private and (node.text() or "").strip().lower() in PLACEHOLDERS:
            self._report(CHANGED, "api_key", "no key: its server asks for none", "", node)
            return {}
        made = f"{name.replace('-', '_').upper()}_KEY"
        made = made if _VARIABLE.fullmatch(made) else f"KEY_{made}"[:128]
        own = node.path[: len(params.path)] == params.path  # a shared credential is reported at its own place
        text = f"a literal key: not copied; the deployment reads env:{made}"
        todo = f"Let the provider replace it, since it stood in a file; set {made}."
        self._report(SECRET if own else CHANGED, "api_key", text, todo, node)
        return {"key": f"env:{made}"}

    def _api_field(
        self, provider: Provider, upstream: str, kind: str, model: Node, missing: list[str]
    ) -> dict[str, str]:
        if provider.api is None:
            return {}
        spoken = provider.api in supported_apis() and not has_unsupported_api(provider.api, upstream)
        if spoken and (kind == "chat" or (kind == "embeddings" and supports_embeddings(provider.api))):
            self._report(
                CHANGED, "model", f"api: {provider.api} of the deployment, as it does not speak OpenAI's", "", model
            )
            return {"api": provider.api}
        missing.append("a translating deployment")
        self._report(NO_EQUAL, "model", "its provider does not speak the OpenAI API, and nothing here translates it",
                     "If it has an OpenAI-compatible address, complete the deployment with it.", model)  # fmt: skip
        return {}

    def _price_field(
        self, group: str, params: Node, info: Node | None, canonical: str, model: Node, missing: list[str], *,
        kind: str,
    ) -> dict[str, Any]:  # fmt: skip
        by_piece, findings = litellm_units.read_unit_price(kind, params, info)
        self._findings.extend(findings)
        found = litellm_prices.read_token_price(params, info, kind=kind)
        self._findings.extend(found.findings)
        asked = self._asked.prices.get(group)
        given = None if asked is None else litellm_units.parse_price(asked, kind)
        if given is not None or by_piece is not None:
            return {"price": given or by_piece}
        if found.price == "free":
            self._report(CHANGED, "price", "a price of zero is price: free, which has to be said", "", model)
        if found.price is not None:
            return {"price": found.price}
        if self._asked.known_price(canonical):
            self._report(CARRIED, "price", f"from the price list, as {canonical}", "", model)
            return {}
        missing.append("a price")
        self._report(NO_PRICE, one_line(group), "nothing is called without a price",
                     f"Say {litellm_units.price_hint(one_line(group), kind)}, or =free.", model)  # fmt: skip
        return {}

    def _cost_bounds(
        self, group: str, body: dict[str, Any], kind: str, model: Node, missing: list[str]
    ) -> dict[str, Any]:  # fmt: skip
        """Fields that bound the cost of one call, for types that need them; an unknown bound is missing."""
        if isinstance(price := body.get("price"), dict) and "minute" in price:
            here = f"one request has at most {litellm_units.MAX_AUDIO} of audio, as all of it is reserved"
            self._report(CHANGED, "audio", here, "Raise audio: of the deployment.", model)
            return {"audio": litellm_units.MAX_AUDIO}
        known = "context" in body or self._asked.known_context(body["model"])
        lacks = None if missing else litellm_units.missing_bound(kind, price, known_context=known)
        if lacks is not None:
            missing.append(lacks.what)
            self._report(NEEDED, one_line(group), lacks.here, lacks.todo.replace("MODEL", one_line(group)), model)
        return {}

    def _site(self, provider: str, region: str | None, url: str | None, private: bool, model: Node) -> dict[str, str]:
        host = host_of(url) if url else ""
        at_home = private and bool(host) and is_private(host)
        law = jurisdiction_of(region) if region else UNKNOWN
        place = host if private and host else provider.replace("_", "-")
        name = slug(f"{place}-{region}" if region else place)
        if law == UNKNOWN and name not in self._unsure:
            self._unsure.add(name)
            here = "the file does not say whose law holds there; no residency includes it"
            todo = f"Write jurisdiction: of site {name}, such as EU or US."
            self._report(NEEDED, f"site {name}", here, todo, model)
        return {"kind": "site", "name": name, "type": "private" if at_home else "cloud", "jurisdiction": law}

    def _report_others(self, params: Node, info: Node | None) -> None:
        for part, name in ((params, "litellm_params"), (info, "model_info")):
            for key, node in part.items() if part else ():
                read = _HANDLED_PARAMS - {"tags"} if part is params else _HANDLED_INFO
                if key in read or litellm_prices.is_price(key) or node.is_empty:
                    continue
                of_info = litellm_settings.BESIDE if key in _HANDLED_PARAMS else litellm_settings.UNKNOWN
                other = litellm_settings.PROVIDER_FIELD if part is params else of_info
                rule = litellm_settings.find_rule(litellm_settings.ENTRY, key) or other
                self._findings.append(setting_finding(f"{name}.{one_line(key)}", key, rule, node))
                self._findings.extend(secrets_below(f"{name}.{one_line(key)}", node))
