"""`groundplan import litellm`: a LiteLLM proxy's config.yaml -> a workspace that passes `check`, and a verdict.

Each model name becomes a workload, each entry of that name a deployment. A workload without owner stays a proposal, a
deployment without price or address stays a comment: an import alone makes nothing run. Pure: texts in, texts out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from shlex import quote
from typing import Any

from groundplan.catalog.check import validate_files
from groundplan.catalog.imports import litellm_settings, yaml_text
from groundplan.catalog.imports.litellm_balance import deployment_weights, read_balance
from groundplan.catalog.imports.litellm_budget import Budgets, read_budgets
from groundplan.catalog.imports.litellm_credentials import read_credentials
from groundplan.catalog.imports.litellm_fallbacks import ANY, read_fallbacks
from groundplan.catalog.imports.litellm_findings import secrets_below, setting_finding
from groundplan.catalog.imports.litellm_models import Entry, EntryReader, ImportOptions
from groundplan.catalog.imports.naming import one_line, slug, unique
from groundplan.catalog.imports.node import Config, Node, read_config
from groundplan.catalog.imports.verdict import (
    CARRIED,
    CHANGED,
    NEEDED,
    NO_OWNER,
    Finding,
    Verdict,
    sort_findings,
)
from groundplan.catalog.model import DUTIES, WorkloadDoc
from groundplan.catalog.validation_errors import suggestion
from groundplan.core.errors import Invalid, Where

TABLES = {
    "litellm_settings": litellm_settings.LITELLM,
    "router_settings": litellm_settings.ROUTER,
    "general_settings": litellm_settings.GENERAL,
}
_CALLBACKS = ("callbacks", "success_callback", "failure_callback", "service_callback", "service_callbacks")
_HANDLED_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("fallbacks", "default_fallbacks", "num_retries", "timeout", "stream_timeout", "request_timeout",
         "routing_strategy"), ("litellm_settings", "router_settings"),
    ),
    **dict.fromkeys(("max_budget", "budget_duration"), ("litellm_settings", "general_settings")),
    **dict.fromkeys(("model_group_alias", *_CALLBACKS), tuple(TABLES)),
    "global_max_parallel_requests": ("general_settings",),
}  # fmt: skip
"""Settings that other functions of this module handle, and the sections in which they do."""
_MAX_OUTPUT = 4096
_DEADLINE = "limits.deadline of each workload, for all attempts of a call together; in LiteLLM each has that time"
_PILOT_CAPS = "pilots have at most 25 people and 1000 calls a day, for 90 days"
_READ_SECTIONS = frozenset({"model_list", "include", "environment_variables", *TABLES})
_IN_DATABASE = "Models that were added in LiteLLM's UI are in its database: list them with its /model/info."
_WRAPPER_HINTS = {
    "proxy_config": "These are values of its Helm chart: write what is below it into a file, and import that.",
    "services": "This is a Compose file: write the text of its configuration into a file, and import that.",
    "apiVersion": "This is an object of Kubernetes: write the text that is below data into a file, and import that.",
}
_SUPPORTED_CALLBACKS = frozenset({"prometheus", "prometheus_system", "otel", "opentelemetry"})


@dataclass(frozen=True, slots=True)
class _SharedSettings:
    """Settings that apply to every workload."""

    config: Config
    asked: ImportOptions
    findings: list[Finding]
    attempts: int | None
    deadline_ms: int | None
    fallbacks: Mapping[str, tuple[str, ...]]
    """Model name -> its fallbacks; `ANY`: those of every other model name."""
    aliases: Mapping[str, str]
    """Alias -> model name."""
    budgets: Budgets
    balance: str
    """Value of `balance` of workloads with several deployments."""


def import_litellm(files: Mapping[str, str], main: str, asked: ImportOptions) -> Verdict:
    """The workspace and verdict of the configuration `main` among `files` (name -> text, with included files).

    Raises `Invalid` with every place where a file is not YAML, or does not have LiteLLM's form.
    """
    config = read_config(files, main)
    findings: list[Finding] = []
    variables = {key: node for key, node in config.mapping("environment_variables") if not node.is_empty}
    literal = {key: node.text() or "" for key, node in variables.items() if node.variable is None}
    config.notes.values = literal | {name: value for name, value in asked.values.items() if value}
    reader = EntryReader(asked, variables, findings, read_credentials(config))
    listed = list(config.items("model_list"))
    if not listed:
        raise Invalid(
            f"{main} has no model_list", code="import_empty", where=Where(main, 1),
            hint=next((each for key, each in _WRAPPER_HINTS.items() if key in config.sections), _IN_DATABASE),
        )  # fmt: skip
    entries = [entry for node in listed if (entry := reader.read(node)) is not None]
    listed_names = {str(named.text()) for node in listed if (named := node.get("model_name")) is not None}
    _require_known_models(asked, {entry.group for entry in entries} | listed_names, main)
    shared = _shared_settings(config, asked, entries, findings)
    groups = _entries_by_model_name(entries)
    workloads = _workload_bodies(groups, shared)
    _add_setting_findings(config, variables, findings)
    config.check()
    written = {
        "company.yaml": _company_text(entries, workloads, shared),
        "deployments.yaml": _deployment_text(entries, deployment_weights(groups, shared.balance, findings)),
        "workloads.yaml": _workload_text(workloads, shared),
    }
    if limits := _limit_text(entries, config, findings):
        written["limits.yaml"] = limits
    config.check()
    findings += _unknown_number_findings(config)
    validate_files(written, known_price=asked.known_price)
    findings.append(Finding(CHANGED, "stage", _PILOT_CAPS, "Raise caps: of the company.", Where(main, 1)))
    if any(entry.type == "chat" for entry in entries):
        here = "images, sound and files in messages are refused until a deployment says what they count at most"
        todo = "Write accepts: with image_tokens: or audio_tokens: of deployments that take them."
        findings.append(Finding(CHANGED, "accepts", here, todo, Where(main, 1)))
    if not all(any(entry.max_output for entry in members) for members in groups.values()):
        here = f"an answer has at most {_MAX_OUTPUT} tokens where max_tokens: is not said, as all of it is reserved"
        findings.append(Finding(CHANGED, "max_tokens", here, "Raise limits.max_output: of workloads.", Where(main, 1)))
    served = sum(body["stage"] != "proposed" for body, _ in workloads)
    ready = sum(not entry.missing for entry in entries)
    return Verdict(written, sort_findings(findings), len(listed), ready, len(workloads), served)


def _require_known_models(asked: ImportOptions, names: set[str], main: str) -> None:
    """Raise `Invalid` (`model_unknown`) where an option names a model that is not in the file."""
    for option, models in (("--owner", asked.owners), ("--price", asked.prices)):
        for model in models.keys() - names - {""}:
            raise Invalid(
                f"{option}: {main} has no model {one_line(model)}", code="model_unknown",
                hint=suggestion(model, names, "model"),
            )  # fmt: skip


def _unknown_number_findings(config: Config) -> list[Finding]:
    """A finding for each number that is in a variable without a known value."""
    by_place = {node.where: node for node in config.notes.unknown_numbers}
    return [
        Finding(
            NEEDED, node.name, "the number stands in a variable: left out", f"Say --set {node.variable}=NUMBER.", where
        )
        for where, node in by_place.items()
    ]


def _entries_by_model_name(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Model name -> its entries by `order`."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry)
    return {group: sorted(members, key=lambda entry: entry.order) for group, members in found.items()}


def _shared_settings(
    config: Config, asked: ImportOptions, entries: list[Entry], findings: list[Finding]
) -> _SharedSettings:
    attempts = _number_setting(config, "num_retries", findings, "limits.attempts of each workload, retries and one")
    deadline = _number_setting(config, "timeout", findings, _DEADLINE)
    other = _number_setting(config, "request_timeout", findings, _DEADLINE)
    _number_setting(
        config, "stream_timeout", findings, "timeouts.first_token of a deployment; written only where it says so"
    )
    seconds = deadline if deadline is not None else other
    types: dict[str, set[str]] = {}
    for entry in entries:
        types.setdefault(entry.group, set()).add(entry.type)
    aliases = _read_aliases(config, set(types), findings)
    return _SharedSettings(
        config, asked, findings,
        None if attempts is None else min(int(attempts) + 1, 10),
        None if not seconds else max(1, min(int(seconds * 1000), 86_400_000)),
        read_fallbacks(config, types, aliases, findings),
        aliases,
        read_budgets(config, asked, findings),
        read_balance(config, findings),
    )  # fmt: skip


def _number_setting(config: Config, key: str, findings: list[Finding], here: str) -> Any:
    """A number of `router_settings`, else of `litellm_settings`; adds a finding for each."""
    numbers = []
    for section in ("router_settings", "litellm_settings"):
        node = config.get(section, key)
        number = node.number() if node else None
        if node is not None and number is not None:
            findings.append(Finding(CHANGED, f"{section}.{key}", here, "", node.where_key))
            numbers.append(number)
    return numbers[0] if numbers else None


def _workload_bodies(groups: Mapping[str, list[Entry]], shared: _SharedSettings) -> list[tuple[dict[str, Any], Where]]:
    """The body of each workload, with its place in the imported file."""
    names: set[str] = set()
    found = []
    talks = any(entry.type == "chat" and not entry.missing for entries in groups.values() for entry in entries)
    for group, entries in groups.items():
        body: dict[str, Any] = {"kind": "workload", "name": unique(slug(group), names)}
        if body["name"] != group:
            body["title"] = one_line(group)
        body |= _alias_field(group, body["name"], shared)
        body["purpose"] = f"Calls that LiteLLM served as {one_line(group)}"
        ready = [entry for entry in entries if not entry.missing]
        owner = shared.asked.owners.get(group) or shared.asked.owners.get("")
        body |= {"stage": "pilot" if ready and owner else "proposed", "sensitivity": "internal"}
        first, later = _split_by_order(ready)
        body |= _deployment_fields(first)
        body |= _fallback_field(group, first, later, groups, shared)
        body |= _limits_field(entries, shared, places=len(first) + len(body.get("fallbacks", ())))
        body |= _reliability_field(entries, first, shared)
        where = entries[0].node.where
        if owner:
            body["owners"] = {"business": owner}
        else:
            todo = f"Say --owner {quote(one_line(group))}=E-MAIL, or --owner E-MAIL for all."
            shared.findings.append(
                Finding(NO_OWNER, one_line(group), "without a business owner it stays a proposal", todo, where)
            )
        if ready and talks and "deployments" not in body:
            here = "its keys may also ask any chat deployment, as leaving out deployments: means all of them"
            todo = f"groundplan keys create --workload {body['name']} --model {ready[0].name}"
            shared.findings.append(Finding(CHANGED, one_line(group), here, todo, where))
        if not ready:
            here = f"workload {body['name']} stays a proposal: none of its deployments is complete"
            shared.findings.append(Finding(NEEDED, one_line(group), here, "Complete one in deployments.yaml.", where))
        found.append((body, where))
    return found


def _alias_field(group: str, name: str, shared: _SharedSettings) -> dict[str, list[str]]:
    """`aliases`: the names that callers write as `model` today, except for the workload's own."""
    said = (group, *(alias for alias, other in shared.aliases.items() if other == group))
    found = [alias for alias in dict.fromkeys(said) if alias != name and one_line(alias) == alias]
    return {"aliases": found} if found else {}


def _deployment_fields(ready: list[Entry]) -> dict[str, list[str]]:
    """Names of deployments by the workload's field for their type."""
    found: dict[str, list[str]] = {}
    for entry in ready:
        path = {"chat": "deployments", "embeddings": "embeddings"}.get(entry.type, "also")
        if path in WorkloadDoc.model_fields:
            found.setdefault(path, []).append(entry.name)
    return found


def _split_by_order(ready: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """(deployments that share the calls, those of a higher `order`, which are used only when the first fail)"""
    lowest = min((entry.order for entry in ready), default=0)
    first = [entry for entry in ready if entry.order == lowest or entry.type != "chat"]
    return first, [entry for entry in ready if entry not in first]


def _fallback_field(
    group: str, first: list[Entry], later: list[Entry], groups: Mapping[str, list[Entry]], shared: _SharedSettings
) -> dict[str, list[str]]:
    own = {entry.name for entry in first}
    names = [entry.name for entry in later]
    wanted = shared.fallbacks.get(group, shared.fallbacks.get(ANY, ()))
    for other in (name if name in groups else shared.aliases.get(name, name) for name in wanted):
        found = groups.get(other) or [each for entries in groups.values() for each in entries if each.id == other]
        if not found:
            here = f"fallback {one_line(other)} is no model of the list"
            shared.findings.append(Finding(NEEDED, one_line(group), here, "Declare it.", groups[group][0].node.where))
        names += [
            entry.name for entry in found
            if not entry.missing and entry.type == "chat" and entry.name not in own | set(names)
        ]  # fmt: skip
    return {"fallbacks": names} if names and any(entry.type == "chat" for entry in first) else {}


def _limits_field(entries: list[Entry], shared: _SharedSettings, *, places: int) -> dict[str, Any]:
    deadline = max((entry.deadline_ms for entry in entries if entry.deadline_ms), default=shared.deadline_ms)
    attempts = _max_attempts(entries, shared)
    output = max((entry.max_output for entry in entries if entry.max_output), default=_MAX_OUTPUT)
    limits: dict[str, Any] = {"max_output": output}
    limits |= {"attempts": min(attempts - 1 + max(places, 1), 10)} if attempts is not None else {}
    limits |= {"deadline": f"{deadline}ms"} if deadline is not None else {}
    return {"limits": limits}


def _max_attempts(entries: list[Entry], shared: _SharedSettings) -> int | None:
    """Number of retries plus one; None if the file has none."""
    return max((entry.attempts for entry in entries if entry.attempts), default=shared.attempts)


def _reliability_field(entries: list[Entry], first: list[Entry], shared: _SharedSettings) -> dict[str, Any]:
    """`reliability`: how deployments share the calls; a single deployment is itself retried."""
    tries = _max_attempts(entries, shared)
    chat = [entry for entry in first if entry.type == "chat"]
    if len(chat) > 1:
        return {"reliability": {"balance": shared.balance}}
    alone = len(chat or first) == 1
    return {"reliability": {"retries": {"same": tries - 1}}} if alone and tries is not None and tries > 1 else {}


def _add_setting_findings(config: Config, variables: Mapping[str, Node], findings: list[Finding]) -> None:
    """Findings for every setting that is not handled elsewhere."""
    for section, table in TABLES.items():
        for key, node in config.mapping(section):
            read = _HANDLED_KEYS.get(key)
            if node.is_empty or (read is not None and section in read):
                continue
            rule = litellm_settings.unread_setting_rule(read) if read else litellm_settings.find_rule(table, key)
            rule = rule or litellm_settings.find_rule(litellm_settings.LITELLM | litellm_settings.ROUTER, key)
            findings.append(setting_finding(f"{section}.{one_line(key)}", key, rule or litellm_settings.UNKNOWN, node))
            findings += secrets_below(f"{section}.{one_line(key)}", node)
        _add_callback_findings(config, section, findings)
    for key, node in variables.items():
        rule = litellm_settings.Rule(CHANGED, "variables are those of the process that serves", "Set it there.")
        findings.append(setting_finding(f"environment_variables.{one_line(key)}", key, rule, node))
    for section, nodes in config.sections.items():
        if section in _READ_SECTIONS:
            continue
        rule = litellm_settings.SECTIONS.get(section)
        if rule is None:
            findings.append(setting_finding(one_line(section), section, litellm_settings.UNKNOWN, nodes[0]))
            findings += [each for part in nodes for each in secrets_below(one_line(section), part)]
            continue
        for node in (each for part in nodes for each in _child_nodes(part)):
            findings.append(Finding(rule.state, one_line(section), rule.here, rule.todo, node.where))
            findings += secrets_below(one_line(section), node)
    here = "teams, users and virtual keys are in LiteLLM's database, not in this file"
    todo = "Declare team: and grant:, and make a key for each caller: groundplan keys create --workload NAME."
    findings.append(Finding(NEEDED, "virtual keys", here, todo, Where(config.main, 1)))


def _child_nodes(node: Node) -> list[Node]:
    if isinstance(node.value, dict):
        return [each for _, each in node.items()] or [node]
    return list(node.entries())


def _read_aliases(config: Config, groups: set[str], findings: list[Finding]) -> dict[str, str]:
    found = {}
    for section in TABLES:
        node = config.get(section, "model_group_alias")
        for key, alias in node.items() if node else ():
            named = alias.get("model") if isinstance(alias.value, dict) else alias
            other = found[key] = (named.text() if named is not None else None) or key
            what = f"{section}.model_group_alias"
            if other in groups:
                here = f"aliases: of the workload of {one_line(other)}; a key leads to one workload"
                todo = f"Give callers of {one_line(key)} a key of it."
                findings.append(Finding(CHANGED, what, here, todo, alias.where_key))
            else:
                here = f"alias {one_line(key)} is of no model of the list"
                findings.append(Finding(NEEDED, what, here, "Declare it.", alias.where_key))
    return found


def _add_callback_findings(config: Config, section: str, findings: list[Finding]) -> None:
    for key in _CALLBACKS:
        node = config.get(section, key)
        for entry in node.entries() if node else ():
            name = entry.text() or ""
            if name in _SUPPORTED_CALLBACKS:
                here = "traces of calls are sent by OTLP" if "tel" in name else "each gateway has /metrics"
                findings.append(Finding(CARRIED, f"{section}.{key}", here, "", entry.where))
            else:
                rule = litellm_settings.LITELLM["success_callback"]
                findings.append(Finding(rule.state, f"{section}.{key}", rule.here, rule.todo, entry.where))


def _company_text(entries: list[Entry], workloads: list[tuple[dict[str, Any], Where]], shared: _SharedSettings) -> str:
    people = sorted({body["owners"]["business"] for body, _ in workloads if "owners" in body})
    body: dict[str, Any] = {"kind": "company", "name": slug(shared.asked.company), "format": 1}
    body["separation"] = "solo" if len(people) == 1 else "enforced"
    if len(people) == 1:
        body["owners"] = dict.fromkeys(DUTIES, people[0])
    text = yaml_text.comment([f"Imported from {shared.config.main}. Check it offline with: groundplan check"])
    text += yaml_text.lines(body)
    sites = {entry.site["name"]: entry.site for entry in entries if entry.site is not None}
    for site in sites.values():
        text += yaml_text.document(site)
    return text


def _deployment_text(entries: list[Entry], shares: Mapping[str, int]) -> str:
    text = yaml_text.comment(["Deployments: a model served at a site. What is a comment lacks what it says first."])
    for entry in entries:
        body = {**entry.body, "site": entry.site["name"] if entry.site else ""}
        body |= {"weight": shares[entry.name]} if entry.name in shares else {}
        where = entry.node.where
        place = f"{where.file}:{where.line}"
        if entry.missing:
            text += "\n" + yaml_text.commented(body, [f"From {place}. It lacks {', '.join(entry.missing)}."])
        else:
            text += yaml_text.document(body, [f"From {place}."])
    return text


def _limit_text(entries: list[Entry], config: Config, findings: list[Finding]) -> str:
    """Limits of deployments, and of calls at once in all; empty where there are none."""
    node = config.get("general_settings", "global_max_parallel_requests")
    number = node.number() if node else None
    text = ""
    if node is not None and number is not None and number >= 1:
        here = "limit of the company, concurrent:, exact across gateways"
        findings.append(Finding(CARRIED, "general_settings.global_max_parallel_requests", here, "", node.where_key))
        text += yaml_text.document({"kind": "limit", "name": "company", "covers": "company", "concurrent": int(number)})
    for entry in entries:
        if not entry.limit:
            continue
        body = {"kind": "limit", "name": entry.name, "covers": f"deployment/{entry.name}", **entry.limit}
        place = f"From {entry.node.where.file}:{entry.node.where.line}."
        if entry.missing:
            text += "\n" + yaml_text.commented(body, [f"{place} Its deployment is not complete."])
        else:
            text += yaml_text.document(body, [place])
    return text and yaml_text.comment(["Limits: the most of something in a time, exact across gateways."]) + text


def _workload_text(workloads: list[tuple[dict[str, Any], Where]], shared: _SharedSettings) -> str:
    text = yaml_text.comment(["Workloads: say in purpose what each is really for. Budgets are hard limits."])
    for body, where in workloads:
        text += yaml_text.document(body, [f"From {where.file}:{where.line}."])
        limit = {"kind": "budget", "name": body["name"], "covers": f"workload/{body['name']}"}
        text += yaml_text.document({**limit, "limit": shared.budgets.workload})
    if shared.budgets.company is not None:
        name = unique("company", {body["name"] for body, _ in workloads})
        limit = {"kind": "budget", "name": name, "covers": "company", "limit": shared.budgets.company}
        text += yaml_text.document(limit)
    return text
