"""Rules for deployments, budgets and workloads. Pure; part of `check`, which is the way in."""

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
"""What a URL `local:NAME` may name besides `scripted-SITE`."""
ENDPOINT = re.compile(r"(?:/chat/completions|(?<=/v1)/(?:completions|responses|embeddings|messages))$")
"""With which a base URL that somebody copied may end."""
_UNSPOKEN = ("claude", "anthropic/", "jamba", "ai21/")
"""With which models at Vertex AI begin that have an API of their own there: Anthropic's and AI21's."""
_NO_EMBEDDINGS = frozenset({"anthropic", "groq"})
"""Providers whose own clients embed nothing."""
_BY_TOKENS = "input: 0.40 USD/Mtok, output: 1.60 USD/Mtok"
_PRICED = {
    type: f"input: 0 USD/Mtok, output: 0 USD/Mtok, {unit}"
    for type, unit in (
        ("images", "images: {any: 0.12 USD}"),
        ("speech", "characters: 15 USD"),
        ("transcription", "minute: 0.006 USD"),
        ("rerank", "request: 0.002 USD"),
    )
}
"""How providers mostly charge for a type of deployment, where that is not by tokens."""


def deployment_problems(workspace: Workspace, known_price: Callable[[str], bool] | None) -> Iterator[Problem]:
    """Address and price of each deployment."""
    for name, doc in workspace.deployments.items():
        yield from _local(workspace, doc)
        yield from _reached(workspace, doc)
        yield from _spoken(workspace, doc)
        yield from _dated(workspace, "deployment", name, doc.price)
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
        priced = bool(doc.price) or (declared is not None and bool(declared.price))
        if known_price is not None and not priced and not known_price(doc.model):
            yield Problem(
                f"there is no price for {doc.model}",
                "price_missing",
                f"Write {_listed(doc, known_price)}price: {{{_PRICED.get(doc.type, _BY_TOKENS)}}}, or price: free.",
                workspace.where("deployment", name, "model"),
            )
    for name, model in workspace.models.items():
        yield from _dated(workspace, "model", name, model.price)


def _listed(doc: DeploymentDoc, known_price: Callable[[str], bool]) -> str:
    """The model as the price list calls it, which has some only with their provider in front; empty: in no way."""
    names = (recognize_upstream(doc.url).listed_name(doc.model), f"openai/{doc.model}")
    found = next((name for name in names if "/" not in doc.model and known_price(name)), None)
    return f"model: {found}, whose price is known; or " if found else ""


_NO_CONVERSATION = [
    (
        "type",
        "realtime_way",
        "conversations go by http: 1 and through no proxy",
        "Use http: 1, and proxy: direct where the company has a proxy.",
    )
]


def _reached(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
    """TLS, HTTP version and proxy that fit the address and each other."""
    secure, tls = doc.url.startswith("https:"), doc.tls
    found: list[tuple[str, str, str, str]] = []
    if (base := ENDPOINT.sub("", doc.url)) != doc.url:
        found.append(("url", "url_endpoint", "the url names an endpoint, which is added to it", f"Write url: {base}"))
    if tls is not None and not secure:
        found.append(("tls", "tls_without_https", "tls is declared, but the url is not https", "Write https://HOST."))
    if tls is not None and tls.key is not None and tls.cert is None:
        found.append(("tls", "tls_key_alone", "a key without a certificate", "Name the certificate: cert: file:/path."))
    proxy = workspace.company.proxy if doc.proxy is None else doc.proxy
    other = doc.http == 2 or ((proxy or "").startswith("https:") and not doc.url.startswith("local:"))
    if tls is not None and tls.server_name is not None and other:
        hint = "Use http: 1 and a proxy that is reached by http, or a url with the name that the certificate bears."
        found.append(("tls", "tls_server_name", "server_name works with http: 1 and no proxy by https only", hint))
    if doc.type == "transcription" and other:
        hint = "Use http: 1, and a proxy that is reached by http, or proxy: direct."
        found.append(("type", "upload_way", "uploads go by http: 1 and through no proxy by https only", hint))
    through = proxy not in (None, DIRECT) and not doc.url.startswith("local:")
    found += _NO_CONVERSATION if doc.type == "realtime" and (doc.http != 1 or through) else []
    if "batches" in doc.serves and (other or doc.type not in ("chat", "embeddings", "moderation")):
        hint = "Leave batches out of serves: its lines are then made as calls."
        way = "through a proxy by https" if other and doc.http == 1 else f"over http: {doc.http}"
        found.append(("serves", "batches_unserved", f"no batches of {doc.type} {way}", hint))
    if doc.proxy is None and doc.proxy_key is not None:
        found.append(("proxy_key", "proxy_missing", "a proxy_key without a proxy", "Write proxy: http://HOST:PORT."))
    if doc.url.startswith("local:") and (doc.proxy not in (None, DIRECT) or doc.http != 1):
        field = "http" if doc.http != 1 else "proxy"
        found.append((field, "local_direct", "a local service is reached directly", f"Leave {field} out."))
    for field, code, message, hint in found:
        yield Problem(f"{doc.name}: {message}", code, hint, workspace.where("deployment", doc.name, field))


def _spoken(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
    """What only an OpenAI-shaped upstream can have; others are reached by their provider's own client."""
    if doc.api == "openai":
        return
    if doc.api == "vertexai" and not ("/projects/" in doc.url and "/locations/" in doc.url):
        hint = "Write https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION."
        where = workspace.where("deployment", doc.name, "url")
        yield Problem(f"{doc.name}: the url does not name project and location", "vertex_url", hint, where)
    yield from _asked(workspace, doc)
    anthropic = doc.api == "anthropic"  # whose Messages, and batches of them, go there directly
    serves = [name for name in doc.serves if not (anthropic and name == "batches")]
    found = [("serves", bool(serves)), ("url", doc.url.startswith("local:"))]
    if not anthropic:
        found.append(("accepts", "file" in doc.accepts))
        found += [("tls", doc.tls is not None), ("http", doc.http != 1), ("proxy", doc.proxy not in (None, DIRECT))]
    company = workspace.company
    if not anthropic and doc.proxy is None and company.proxy not in (None, DIRECT):
        yield Problem(
            f"{doc.name}: the company's proxy is not on the way to an upstream with api: {doc.api}",
            "proxy_passed_by",
            "Write proxy: direct where it may be reached without one, or use an OpenAI-shaped address of the provider.",
            workspace.where("deployment", doc.name, "api"),
        )
    for field, declared in found:
        if declared:
            yield Problem(
                f"{doc.name}: {field} does not reach an upstream with api: {doc.api}",
                "api_not_openai",
                f"Leave {field} out, or use an OpenAI-shaped address of the provider."
                if field != "url"
                else "Write https://HOST.",
                workspace.where("deployment", doc.name, field),
            )


def _asked(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
    """What a provider's own client is never asked for, or with."""
    if unspoken(doc.api, doc.name_upstream) or unspoken(doc.api, doc.model):
        yield Problem(
            f"{doc.name}: {doc.name_upstream} is asked at Vertex AI in an API of its own, which is not spoken here",
            "vertex_model",
            "Declare it where it is reached otherwise: Claude with api: anthropic or api: bedrock.",
            workspace.where("deployment", doc.name, "upstream_model" if doc.upstream_model else "model"),
        )
    if doc.type == "embeddings" and not embeds(doc.api):
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


def unspoken(api: str, upstream: str) -> bool:
    """Whether a provider has a model in an API that is spoken here for none of its models."""
    return api == "vertexai" and upstream.lower().startswith(_UNSPOKEN)


def embeds(api: str) -> bool:
    """Whether embeddings can be asked for in this API."""
    return api not in _NO_EMBEDDINGS


def _local(workspace: Workspace, doc: DeploymentDoc) -> Iterator[Problem]:
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


def _dated(workspace: Workspace, kind: str, name: str, prices: tuple[Price, ...]) -> Iterator[Problem]:
    days = [price.since for price in prices]
    for i, day in enumerate(days):
        if day in days[:i]:
            where = workspace.where(kind, name, "price", i)
            yield Problem("two prices begin on the same day", "price_twice", "Give each its own from: date.", where)


def budget_problems(workspace: Workspace) -> Iterator[Problem]:
    """Each thing has at most one budget for each period."""
    seen: dict[tuple[str, str], str] = {}
    for name, doc in workspace.budgets.items():
        first_name = seen.setdefault((doc.covers, doc.limit.period), name)
        if first_name != name:
            first = workspace.where("budget", first_name, "covers")
            yield Problem(
                f"{doc.covers} has a budget for each {doc.limit.period} already, {first_name} at {first}",
                "budget_twice",
                "Keep one, or give it another period.",
                workspace.where("budget", name, "covers"),
            )


def limit_problems(workspace: Workspace, broken: frozenset[tuple[str, str]]) -> Iterator[Problem]:
    """A limit covers a model that is deployed, or a person by e-mail address."""
    models = {doc.model for doc in workspace.deployments.values()}
    for name, doc in workspace.limits.items():
        kind, _, target = doc.covers.partition("/")
        where = workspace.where("limit", name, "covers")
        if kind == "model" and target not in models and not _any(broken, "deployment"):
            hint = f"Deployed are: {', '.join(sorted(models))}." if models else "Declare a deployment of it."
            yield Problem(f"no deployment has the model {target}", "unknown_model", hint, where)
        if kind == "user" and target and not is_email(target):
            yield Problem(f"{target} is no e-mail address", "unknown_person", "Write user/ana@acme.example.", where)


_TYPES = {
    "deployments": ("chat",),
    "fallbacks": ("chat",),
    "embeddings": ("embeddings",),
    "also": ("images", "speech", "transcription", "rerank", "moderation", "realtime"),
}
"""Field of a workload -> types of the deployments that it may name."""


def grant_problems(workspace: Workspace) -> Iterator[Problem]:
    """A grant allows what its object can give."""
    for name, doc in workspace.grants.items():
        of_source = doc.on.startswith("source/")
        for i, allowed in enumerate(doc.allows):
            if (allowed == "read") != of_source:
                possible = "read" if of_source else "use or act-for-others"
                yield Problem(
                    f"grant {name} allows {allowed} on {doc.on}",
                    "grant_on",
                    f"On {doc.on} it can allow {possible}.",
                    workspace.where("grant", name, "allows", i),
                )


def workload_problems(workspace: Workspace, broken: frozenset[tuple[str, str]]) -> Iterator[Problem]:
    """What each workload must have before it may be served, and what it may not combine."""
    for doc in workspace.workloads.values():
        if doc.stage in SERVED_STAGES:
            yield from _answered_for(workspace, doc, broken)
        yield from _sources(workspace, doc)
        for path, types in _TYPES.items():
            yield from _places(workspace, doc, path, types)
        yield from _details(workspace, doc)
        yield from _guarded(workspace, doc)


def _guarded(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    """A judge must be one of the workload's own deployments; passages are cited only where there are any."""
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


def _answered_for(workspace: Workspace, doc: WorkloadDoc, broken: frozenset[tuple[str, str]]) -> Iterator[Problem]:
    where = workspace.where("workload", doc.name, "owners")
    if not doc.owners.business:
        yield Problem(
            f"workload {doc.name} has no business owner",
            "no_business_owner",
            "Nothing runs without one: owners: {business: NAME@HOST}.",
            where,
        )
    if doc.stage == "production":
        company = workspace.company.owners.by_duty()
        own = doc.owners.by_duty()
        missing = [duty for duty in DUTIES if duty != "business" and duty not in own and duty not in company]
        if missing:
            yield Problem(
                f"workload {doc.name} is in production without an owner for {', '.join(missing)}",
                "missing_duties",
                "Name somebody for each, here or in owners of the company; one person may hold several.",
                where,
            )
    covered = {f"workload/{doc.name}", f"team/{doc.team}"}
    if not any(budget.covers in covered for budget in workspace.budgets.values()) and not _any(broken, "budget"):
        yield Problem(
            f"workload {doc.name} has no budget",
            "no_budget",
            f"Add kind: budget, covers: workload/{doc.name}, limit: 50 USD/month.",
            workspace.where("workload", doc.name, "name"),
        )
    chat = any(d.type == "chat" for d in workspace.deployments.values())
    if doc.chats and not chat and not _any(broken, "deployment"):
        yield Problem(
            f"workload {doc.name} has nothing that could serve it",
            "no_deployment",
            "Declare kind: deployment with site, model and url; one of another type than chat is named under also, or "
            "embeddings.",
            workspace.where("workload", doc.name, "name"),
        )


def _any(broken: frozenset[tuple[str, str]], kind: str) -> bool:
    return any(found == kind for found, _ in broken)


def _sources(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    for i, name in enumerate(doc.sources):
        source = workspace.sources.get(name)
        if source and sensitivity_rank(source.sensitivity) > sensitivity_rank(doc.sensitivity):
            yield Problem(
                f"source {name} is {source.sensitivity}, workload {doc.name} only {doc.sensitivity}",
                "source_too_sensitive",
                f"Raise the workload to sensitivity: {source.sensitivity}, or use another source.",
                workspace.where("workload", doc.name, "sources", i),
            )
        yield from _permitted(workspace, doc, i, name)


def _permitted(workspace: Workspace, doc: WorkloadDoc, i: int, name: str) -> Iterator[Problem]:
    """A source that says what it may be used for is used for that only, and where it may be processed."""
    source = workspace.sources.get(name)
    if source is None:
        return
    rule, place = source.governed, workspace.where("workload", doc.name, "sources", i)
    if rule.workloads and doc.name not in rule.workloads:
        yield Problem(
            f"source {name} may be used by {', '.join(rule.workloads)}, not by {doc.name}",
            "source_not_for_workload",
            f"Add {doc.name} to `governed: {{workloads: …}}` of the source, or use another.",
            place,
        )
    if rule.purposes and not set(rule.purposes) & set(doc.needs.purposes):
        yield Problem(
            f"source {name} may be used for {', '.join(rule.purposes)}, and {doc.name} says none of these",
            "source_not_for_purpose",
            "Write the purpose as `needs: {purposes: …}` of the workload, or use another source.",
            place,
        )
    if rule.residency and not (
        doc.residency and all(satisfies_residency(each, rule.residency) for each in doc.residency)
    ):
        yield Problem(
            f"source {name} may be processed in {', '.join(rule.residency)} only, {doc.name} may run elsewhere",
            "source_residency",
            f"Write `residency: [{', '.join(rule.residency)}]` into the workload, or use another source.",
            place,
        )


def _places(workspace: Workspace, doc: WorkloadDoc, path: str, types: tuple[str, ...]) -> Iterator[Problem]:
    """Deployments that a workload names must be of the right type and at places where its data may be."""
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
        yield from _limited(workspace, doc, where, "site", site.name, site.purposes)
        model = workspace.models.get(deployment.model)
        if model is not None:
            yield from _limited(workspace, doc, where, "model", model.name, model.purposes)


def _limited(
    workspace: Workspace, doc: WorkloadDoc, where: Where, kind: str, name: str, allowed: tuple[str, ...]
) -> Iterator[Problem]:
    """A site or model that says what it is for serves workloads all of whose purposes are among these."""
    asked = doc.needs.purposes
    if allowed and (not asked or set(asked) - set(allowed)):
        yield Problem(
            f"{kind} {name} may be used for {', '.join(allowed)} only, {doc.name} is for "
            f"{', '.join(asked) or 'no purpose that it names'}",
            "place_not_for_purpose",
            "Name another deployment, write its purposes as `needs: {purposes: …}`, or widen those of the "
            f"{kind} ({workspace.where(kind, name, 'purposes')}).",
            where,
        )


def _details(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
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
