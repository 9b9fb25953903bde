"""Rules for deployments, budgets, limits, grants and workloads. Pure; called by `check`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from groundplan.catalog.fields import is_email
from groundplan.catalog.model import DUTIES, SERVED_STAGES, DeploymentDoc, Price, WorkloadDoc, sensitivity_rank
from groundplan.catalog.rules.experiments import experiment_problems
from groundplan.catalog.rules.routes import routing_problems
from groundplan.catalog.transport import DIRECT
from groundplan.catalog.well_known import recognize_upstream
from groundplan.catalog.workspace import Workspace, satisfies_residency
from groundplan.core.errors import Problem, Where

LOCAL_SERVICES = ("embedded", "embeddings")
"""Names allowed in a URL `local:NAME`, besides `scripted-SITE`."""
ENDPOINT_SUFFIX = re.compile(r"(?:/chat/completions|(?<=/v1)/(?:completions|responses|embeddings|messages))$")
"""Path of an endpoint at the end of a URL that was copied from an example; a base URL must not have it."""
_UNSUPPORTED_VERTEX_MODELS = ("claude", "anthropic/", "jamba", "ai21/")
"""Prefixes of the models at Vertex AI that have an API of their own there: Anthropic's and AI21's."""
_NO_EMBEDDINGS = frozenset({"anthropic", "groq"})
"""Providers whose own clients have no embeddings."""
_TOKEN_PRICE_EXAMPLE = "input: 0.40 USD/Mtok, output: 1.60 USD/Mtok"
_PRICE_EXAMPLES = {
    type: f"input: 0 USD/Mtok, output: 0 USD/Mtok, {unit}"
    for type, unit in (
        ("images", "images: {any: 0.12 USD}"),
        ("speech", "characters: 15 USD"),
        ("transcription", "minute: 0.006 USD"),
        ("rerank", "request: 0.002 USD"),
    )
}
"""Type of deployment -> example of a price as providers usually have it, where that is not by tokens."""


def deployment_problems(workspace: Workspace, known_price: Callable[[str], bool] | None) -> Iterator[Problem]:
    """Problems with the address, inputs and price of each deployment."""
    for name, doc in workspace.deployments.items():
        yield from _local_service_problems(workspace, doc)
        yield from _address_problems(workspace, doc)
        yield from _foreign_api_problems(workspace, doc)
        yield from _price_date_problems(workspace, "deployment", name, doc.price)
        if doc.key is not None and doc.keys:
            yield Problem(
                f"deployment {name} has both key and keys",
                "keys_twice",
                "Write all of them under keys, or one as key.",
                workspace.where("deployment", name, "keys"),
            )
        if "audio" in doc.accepts and doc.audio_tokens is None:
            yield Problem(
                f"deployment {name} accepts audio without a bound of what it costs",
                "audio_unbounded",
                "Write audio_tokens: the most tokens that its provider counts for one KiB of audio, such as 20.",
                workspace.where("deployment", name, "accepts"),
            )
        if "image" in doc.accepts and doc.image_tokens is None:
            yield Problem(
                f"deployment {name} accepts images without a bound of what one costs",
                "image_unbounded",
                "Write image_tokens: the most tokens that its provider counts for one image, such as 1105.",
                workspace.where("deployment", name, "accepts"),
            )
        if doc.audio is None and any(price.minute for price in doc.price):
            yield Problem(
                f"deployment {name} has a price for minutes without a bound of how many one request may have",
                "audio_unbounded",
                "Write audio: the longest audio that may be sent in at once, such as 30m.",
                workspace.where("deployment", name, "price"),
            )
        declared = workspace.models.get(doc.model)
        has_price = bool(doc.price) or (declared is not None and bool(declared.price))
        if known_price is not None and not has_price and not known_price(doc.model):
            example = _PRICE_EXAMPLES.get(doc.type, _TOKEN_PRICE_EXAMPLE)
            yield Problem(
                f"there is no price for {doc.model}",
                "price_missing",
                f"Write {_price_hint_prefix(doc, known_price)}price: {{{example}}}, or price: free.",
                workspace.where("deployment", name, "model"),
            )
    for name, model in workspace.models.items():
        yield from _price_date_problems(workspace, "model", name, model.price)


def _price_hint_prefix(doc: DeploymentDoc, known_price: Callable[[str], bool]) -> str:
    """Start of the hint on a missing price: the name under which the price list has the model, if any; else empty."""
    names = (recognize_upstream(doc.url).listed_name(doc.model), f"openai/{doc.model}")
    listed = next((name for name in names if "/" not in doc.model and known_price(name)), None)
    return f"model: {listed}, whose price is known; or " if listed else ""


_CONVERSATION_PROBLEMS = [
    (
        "type",
        "realtime_way",
        "conversations go by http: 1 and through no proxy by https",
        "Use http: 1, and a proxy that is reached by http, or proxy: direct.",
    )
]


def _address_problems(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
    """Problems with TLS, HTTP version and proxy that do not fit the address or each other."""
    secure, tls = doc.url.startswith("https:"), doc.tls
    problems: list[tuple[str, str, str, str]] = []
    if (base := ENDPOINT_SUFFIX.sub("", doc.url)) != doc.url:
        problems.append(
            ("url", "url_endpoint", "the url names an endpoint, which is added to it", f"Write url: {base}")
        )
    if tls is not None and not secure:
        problems.append(
            ("tls", "tls_without_https", "tls is declared, but the url is not https", "Write https://HOST.")
        )
    if tls is not None and tls.key is not None and tls.cert is None:
        problems.append(
            ("tls", "tls_key_alone", "a key without a certificate", "Name the certificate: cert: file:/path.")
        )
    proxy = workspace.company.proxy if doc.proxy is None else doc.proxy
    uses_general_client = doc.http == 2 or ((proxy or "").startswith("https:") and not doc.url.startswith("local:"))
    if tls is not None and tls.server_name is not None and uses_general_client:
        hint = "Use http: 1 and a proxy that is reached by http, or a url with the name that the certificate bears."
        problems.append(("tls", "tls_server_name", "server_name works with http: 1 and no proxy by https only", hint))
    if doc.type == "transcription" and uses_general_client:
        hint = "Use http: 1, and a proxy that is reached by http, or proxy: direct."
        problems.append(("type", "upload_way", "uploads go by http: 1 and through no proxy by https only", hint))
    problems += _CONVERSATION_PROBLEMS if doc.type == "realtime" and uses_general_client else []
    if "batches" in doc.serves and (uses_general_client or doc.type not in ("chat", "embeddings", "moderation")):
        hint = "Leave batches out of serves: its lines are then made as calls."
        connection = "through a proxy by https" if uses_general_client and doc.http == 1 else f"over http: {doc.http}"
        problems.append(("serves", "batches_unserved", f"no batches of {doc.type} {connection}", hint))
    if doc.proxy is None and doc.proxy_key is not None:
        problems.append(("proxy_key", "proxy_missing", "a proxy_key without a proxy", "Write proxy: http://HOST:PORT."))
    if doc.url.startswith("local:") and (doc.proxy not in (None, DIRECT) or doc.http != 1):
        field = "http" if doc.http != 1 else "proxy"
        problems.append((field, "local_direct", "a local service is reached directly", f"Leave {field} out."))
    for field, code, message, hint in problems:
        yield Problem(f"{doc.name}: {message}", code, hint, workspace.where("deployment", doc.name, field))


def _foreign_api_problems(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
    """Settings that only an OpenAI-shaped upstream can have, at a deployment that is called through its provider's own
    client."""
    if doc.api == "openai":
        return
    if doc.api == "vertexai" and not ("/projects/" in doc.url and "/locations/" in doc.url):
        hint = "Write https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION."
        where = workspace.where("deployment", doc.name, "url")
        yield Problem(f"{doc.name}: the url does not name project and location", "vertex_url", hint, where)
    yield from _client_problems(workspace, doc)
    anthropic = doc.api == "anthropic"  # whose Messages, and batches of them, go there directly
    serves = [name for name in doc.serves if not (anthropic and name == "batches")]
    fields = [("serves", bool(serves)), ("url", doc.url.startswith("local:"))]
    if not anthropic:
        fields.append(("accepts", "file" in doc.accepts))
        fields += [("tls", doc.tls is not None), ("http", doc.http != 1), ("proxy", doc.proxy not in (None, DIRECT))]
    company = workspace.company
    if not anthropic and doc.proxy is None and company.proxy not in (None, DIRECT):
        yield Problem(
            f"{doc.name}: the company's proxy is not on the way to an upstream with api: {doc.api}",
            "proxy_passed_by",
            "Write proxy: direct where it may be reached without one, or use an OpenAI-shaped address of the provider.",
            workspace.where("deployment", doc.name, "api"),
        )
    for field, declared in fields:
        if declared:
            yield Problem(
                f"{doc.name}: {field} does not reach an upstream with api: {doc.api}",
                "api_not_openai",
                f"Leave {field} out, or use an OpenAI-shaped address of the provider."
                if field != "url"
                else "Write https://HOST.",
                workspace.where("deployment", doc.name, field),
            )


def _client_problems(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
    """Models, types and keys that a provider's own client does not support."""
    if has_unsupported_api(doc.api, doc.name_upstream) or has_unsupported_api(doc.api, doc.model):
        yield Problem(
            f"{doc.name}: {doc.name_upstream} is asked at Vertex AI in an API of its own, which is not spoken here",
            "vertex_model",
            "Declare it where it is reached otherwise: Claude with api: anthropic or api: bedrock.",
            workspace.where("deployment", doc.name, "upstream_model" if doc.upstream_model else "model"),
        )
    if doc.type == "embeddings" and not supports_embeddings(doc.api):
        yield Problem(
            f"{doc.name}: there are no embeddings through api: {doc.api}",
            "api_not_openai",
            "Leave api out where the provider has them at an OpenAI-shaped address.",
            workspace.where("deployment", doc.name, "type"),
        )
    if doc.api == "vertexai" and (doc.key is not None or doc.keys):
        yield Problem(
            f"{doc.name}: Vertex AI is asked with the credentials of the machine, and with no key",
            "key_unused",
            "Leave it out, and set GOOGLE_APPLICATION_CREDENTIALS where `groundplan up` starts.",
            workspace.where("deployment", doc.name, "key" if doc.key is not None else "keys"),
        )


def has_unsupported_api(api: str, upstream: str) -> bool:
    """Whether the provider serves the model only through an API that is not supported here."""
    return api == "vertexai" and upstream.lower().startswith(_UNSUPPORTED_VERTEX_MODELS)


def supports_embeddings(api: str) -> bool:
    """Whether embeddings can be requested through this API."""
    return api not in _NO_EMBEDDINGS


def _local_service_problems(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
    scheme, _, service = doc.url.partition(":")
    if scheme != "local" or service in LOCAL_SERVICES:
        return
    site = service.removeprefix("scripted-")
    if site == service:
        hint = f"Known: local:{', local:'.join(LOCAL_SERVICES)}, local:scripted-SITE."
    elif site != doc.site:
        hint = f"The site of this deployment is {doc.site}: write local:scripted-{doc.site}."
    else:
        return
    where = workspace.where("deployment", doc.name, "url")
    yield Problem(f"there is no local service {service}", "unknown_local", hint, where)


def _price_date_problems(workspace: Workspace, kind: str, name: str, prices: tuple[Price, ...]) -> Iterator[Problem]:
    days = [price.since for price in prices]
    for i, day in enumerate(days):
        if day in days[:i]:
            where = workspace.where(kind, name, "price", i)
            yield Problem("two prices begin on the same day", "price_twice", "Give each its own from: date.", where)


def budget_problems(workspace: Workspace) -> Iterator[Problem]:
    """A second budget for the same object and period."""
    first_names: dict[tuple[str, str], str] = {}
    for name, doc in workspace.budgets.items():
        first_name = first_names.setdefault((doc.covers, doc.limit.period), name)
        if first_name != name:
            first_where = workspace.where("budget", first_name, "covers")
            yield Problem(
                f"{doc.covers} has a budget for each {doc.limit.period} already, {first_name} at {first_where}",
                "budget_twice",
                "Keep one, or give it another period.",
                workspace.where("budget", name, "covers"),
            )


def limit_problems(workspace: Workspace, broken: frozenset[tuple[str, str]]) -> Iterator[Problem]:
    """Limits of a model that is not deployed, or of a person who is not named by e-mail address."""
    models = {doc.model for doc in workspace.deployments.values()}
    for name, doc in workspace.limits.items():
        kind, _, target = doc.covers.partition("/")
        where = workspace.where("limit", name, "covers")
        if kind == "model" and target not in models and not _has_broken(broken, "deployment"):
            hint = f"Deployed are: {', '.join(sorted(models))}." if models else "Declare a deployment of it."
            yield Problem(f"no deployment has the model {target}", "unknown_model", hint, where)
        if kind == "user" and target and not is_email(target):
            yield Problem(f"{target} is no e-mail address", "unknown_person", "Write user/ana@acme.example.", where)


_ALLOWED_TYPES = {
    "deployments": ("chat",),
    "fallbacks": ("chat",),
    "embeddings": ("embeddings",),
    "also": ("images", "speech", "transcription", "rerank", "moderation", "realtime"),
}
"""Field of a workload -> types of the deployments that it may name."""


def grant_problems(workspace: Workspace) -> Iterator[Problem]:
    """Grants that allow something that their object does not have."""
    for name, doc in workspace.grants.items():
        is_on_source = doc.on.startswith("source/")
        for i, allowed in enumerate(doc.allows):
            if (allowed == "read") != is_on_source:
                possible = "read" if is_on_source else "use or act-for-others"
                yield Problem(
                    f"grant {name} allows {allowed} on {doc.on}",
                    "grant_on",
                    f"On {doc.on} it can allow {possible}.",
                    workspace.where("grant", name, "allows", i),
                )


def workload_problems(workspace: Workspace, broken: frozenset[tuple[str, str]]) -> Iterator[Problem]:
    """What each workload lacks before it may be served, and settings that it may not combine."""
    for doc in workspace.workloads.values():
        if doc.stage in SERVED_STAGES:
            yield from _owner_and_budget_problems(workspace, doc, broken)
        yield from _source_problems(workspace, doc)
        for path, types in _ALLOWED_TYPES.items():
            yield from _deployment_reference_problems(workspace, doc, path, types)
        yield from _detail_problems(workspace, doc)
        yield from _guardrail_problems(workspace, doc)


def _guardrail_problems(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    """A judge that is not among the workload's deployments, and checks of passages without sources."""
    rule = doc.guardrails
    if rule is None:
        return
    judge = rule.output.judge
    if judge is not None and judge.deployment not in (*doc.deployments, *doc.fallbacks):
        yield Problem(
            f"the judge {judge.deployment} is not among the deployments of {doc.name}",
            "judge_unknown",
            "Name it under deployments or fallbacks too; its calls are the workload's own.",
            workspace.where("workload", doc.name, "guardrails", "output", "judge", "deployment"),
        )
    if rule.output.grounded and not doc.sources:
        yield Problem(
            f"{doc.name} has no sources, so no answer can cite a passage",
            "grounded_without_sources",
            "Declare sources, or leave grounded out.",
            workspace.where("workload", doc.name, "guardrails", "output", "grounded"),
        )


def _owner_and_budget_problems(
    workspace: Workspace, doc: WorkloadDoc, broken: frozenset[tuple[str, str]]
) -> Iterator[Problem]:
    where = workspace.where("workload", doc.name, "owners")
    if not doc.owners.business:
        yield Problem(
            f"workload {doc.name} has no business owner",
            "no_business_owner",
            "Nothing runs without one: owners: {business: NAME@HOST}.",
            where,
        )
    if doc.stage == "production":
        company_duties = workspace.company.owners.by_duty()
        own_duties = doc.owners.by_duty()
        missing = [
            duty for duty in DUTIES if duty != "business" and duty not in own_duties and duty not in company_duties
        ]
        if missing:
            yield Problem(
                f"workload {doc.name} is in production without an owner for {', '.join(missing)}",
                "missing_duties",
                "Name somebody for each, here or in owners of the company; one person may hold several.",
                where,
            )
    covered = {f"workload/{doc.name}", f"team/{doc.team}"}
    if not any(budget.covers in covered for budget in workspace.budgets.values()) and not _has_broken(broken, "budget"):
        yield Problem(
            f"workload {doc.name} has no budget",
            "no_budget",
            f"Add kind: budget, covers: workload/{doc.name}, limit: 50 USD/month.",
            workspace.where("workload", doc.name, "name"),
        )
    has_chat = any(d.type == "chat" for d in workspace.deployments.values())
    if doc.chats and not has_chat and not _has_broken(broken, "deployment"):
        yield Problem(
            f"workload {doc.name} has nothing that could serve it",
            "no_deployment",
            "Declare kind: deployment with site, model and url; one of another type than chat is named under also, or "
            "embeddings.",
            workspace.where("workload", doc.name, "name"),
        )


def _has_broken(broken: frozenset[tuple[str, str]], kind: str) -> bool:
    return any(broken_kind == kind for broken_kind, _ in broken)


def _source_problems(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    for i, name in enumerate(doc.sources):
        source = workspace.sources.get(name)
        if source and sensitivity_rank(source.sensitivity) > sensitivity_rank(doc.sensitivity):
            yield Problem(
                f"source {name} is {source.sensitivity}, workload {doc.name} only {doc.sensitivity}",
                "source_too_sensitive",
                f"Raise the workload to sensitivity: {source.sensitivity}, or use another source.",
                workspace.where("workload", doc.name, "sources", i),
            )
        yield from _source_use_problems(workspace, doc, i, name)


def _source_use_problems(workspace: Workspace, doc: WorkloadDoc, i: int, name: str) -> Iterator[Problem]:
    """A source that the workload may not use: by its list of workloads, its purposes, or its residency."""
    source = workspace.sources.get(name)
    if source is None:
        return
    rule, where = source.governed, workspace.where("workload", doc.name, "sources", i)
    if rule.workloads and doc.name not in rule.workloads:
        yield Problem(
            f"source {name} may be used by {', '.join(rule.workloads)}, not by {doc.name}",
            "source_not_for_workload",
            f"Add {doc.name} to `governed: {{workloads: …}}` of the source, or use another.",
            where,
        )
    if rule.purposes and not set(rule.purposes) & set(doc.needs.purposes):
        yield Problem(
            f"source {name} may be used for {', '.join(rule.purposes)}, and {doc.name} says none of these",
            "source_not_for_purpose",
            "Write the purpose as `needs: {purposes: …}` of the workload, or use another source.",
            where,
        )
    if rule.residency and not (
        doc.residency and all(satisfies_residency(each, rule.residency) for each in doc.residency)
    ):
        yield Problem(
            f"source {name} may be processed in {', '.join(rule.residency)} only, {doc.name} may run elsewhere",
            "source_residency",
            f"Write `residency: [{', '.join(rule.residency)}]` into the workload, or use another source.",
            where,
        )


def _deployment_reference_problems(
    workspace: Workspace, doc: WorkloadDoc, path: str, types: tuple[str, ...]
) -> Iterator[Problem]:
    """Deployments named by a workload that are of the wrong type, or at a site where its data may not be."""
    names: tuple[str, ...] = getattr(doc, path)
    for i, name in enumerate(names):
        where = workspace.where("workload", doc.name, path, i)
        if name in names[:i] or (path == "fallbacks" and name in doc.deployments):
            yield Problem(f"deployment {name} is named twice", "deployment_twice", "Name each once.", where)
        deployment = workspace.deployments.get(name)
        if deployment is None:
            continue
        if deployment.type not in types:
            hint = f"Name a deployment with type: {' or '.join(types)}."
            yield Problem(f"deployment {name} serves {deployment.type}", "wrong_deployment_type", hint, where)
        site = workspace.sites.get(deployment.site)
        if site is None:
            continue
        if not satisfies_residency(site.jurisdiction, doc.residency):
            yield Problem(
                f"deployment {name} is at {site.name} in {site.jurisdiction}, outside {', '.join(doc.residency)}",
                "outside_residency",
                "Name a deployment inside, or widen residency.",
                where,
            )
        if sensitivity_rank(doc.sensitivity) > sensitivity_rank(site.max_sensitivity):
            yield Problem(
                f"site {site.name} holds at most {site.max_sensitivity} data, workload {doc.name} is {doc.sensitivity}",
                "site_not_trusted",
                "Name a deployment at another site, or raise holds of that site.",
                where,
            )
        yield from _purpose_problems(workspace, doc, where, "site", site.name, site.purposes)
        model = workspace.models.get(deployment.model)
        if model is not None:
            yield from _purpose_problems(workspace, doc, where, "model", model.name, model.purposes)


def _purpose_problems(
    workspace: Workspace, doc: WorkloadDoc, where: Where, kind: str, name: str, allowed: tuple[str, ...]
) -> Iterator[Problem]:
    """A site or model restricted to purposes that do not include all purposes of the workload."""
    purposes = doc.needs.purposes
    if allowed and (not purposes or set(purposes) - set(allowed)):
        yield Problem(
            f"{kind} {name} may be used for {', '.join(allowed)} only, {doc.name} is for "
            f"{', '.join(purposes) or 'no purpose that it names'}",
            "place_not_for_purpose",
            "Name another deployment, write its purposes as `needs: {purposes: …}`, or widen those of the "
            f"{kind} ({workspace.where(kind, name, 'purposes')}).",
            where,
        )


def _detail_problems(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    name, _, version = (doc.prompt or "").partition("@")
    prompt = workspace.prompts.get(name)
    if version and prompt and prompt.version != int(version):
        yield Problem(
            f"prompt {name} is declared in version {prompt.version}, not {version}",
            "prompt_version",
            f"Write {name}@{prompt.version}.",
            workspace.where("workload", doc.name, "prompt"),
        )
    if doc.sensitivity == "restricted" and doc.grace:
        yield Problem(
            "restricted data has no grace when a gateway is cut off",
            "grace_restricted",
            "Remove grace.",
            workspace.where("workload", doc.name, "grace"),
        )
    yield from routing_problems(workspace, doc)
    yield from experiment_problems(workspace, doc)
    if doc.cache.scope == "workload" and doc.sources:
        yield Problem(
            f"workload {doc.name} shares answers from documents among all its callers",
            "cache_scope",
            "Who may read what differs from person to person: write scope: group, or leave it out.",
            workspace.where("workload", doc.name, "cache"),
        )
