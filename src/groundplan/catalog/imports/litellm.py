"""`groundplan import litellm`: a LiteLLM proxy's config.yaml -> a workspace that passes `check`, and a verdict.

Each model name that callers ask for becomes a workload, each entry behind it a deployment. What has no owner stays a
proposal, what has no price or address stays a comment: nothing runs by having been imported. Pure: texts in, texts out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

from groundplan.catalog.check import validate_files
from groundplan.catalog.imports import litellm_settings, yaml_text
from groundplan.catalog.imports.litellm_balance import balance, weights
from groundplan.catalog.imports.litellm_budget import Budgets, budgets_of
from groundplan.catalog.imports.litellm_credentials import credentials_of
from groundplan.catalog.imports.litellm_findings import told
from groundplan.catalog.imports.litellm_models import Asked, Entry, EntryReader
from groundplan.catalog.imports.naming import one_line, slug, unique
from groundplan.catalog.imports.node import Config, Node, read_config
from groundplan.catalog.imports.verdict import (
    CARRIED,
    CHANGED,
    NEEDED,
    NO_EQUAL,
    NO_OWNER,
    SECRET,
    Finding,
    Verdict,
    in_order,
)
from groundplan.catalog.model import DUTIES, WorkloadDoc
from groundplan.core.errors import Invalid, Where

TABLES = {
    "litellm_settings": litellm_settings.LITELLM,
    "router_settings": litellm_settings.ROUTER,
    "general_settings": litellm_settings.GENERAL,
}
_CALLBACKS = ("callbacks", "success_callback", "failure_callback", "service_callback", "service_callbacks")
_BY_CODE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("fallbacks", "default_fallbacks", "num_retries", "timeout", "stream_timeout", "request_timeout",
         "routing_strategy"), ("litellm_settings", "router_settings"),
    ),
    **dict.fromkeys(("max_budget", "budget_duration"), ("litellm_settings", "general_settings")),
    **dict.fromkeys(("model_group_alias", *_CALLBACKS), tuple(TABLES)),
    "global_max_parallel_requests": ("general_settings",),
}  # fmt: skip
"""What is read elsewhere in this module, and in which sections."""
_MOST_OUTPUT = 4096
_OF_ALL = "fallbacks: of each workload that has none of its own"
_PILOTS = "pilots have at most 25 people and 1000 calls a day, for 90 days"
_READ = frozenset({"model_list", "include", "environment_variables", *TABLES})
_IN_DATABASE = "Models that were added in LiteLLM's UI are in its database: list them with its /model/info."
_WRAPPED = {
    "proxy_config": "These are values of its Helm chart: write what is below it into a file, and import that.",
    "services": "This is a Compose file: write the text of its configuration into a file, and import that.",
    "apiVersion": "This is an object of Kubernetes: write the text that is below data into a file, and import that.",
}
_HAS_EQUAL = frozenset({"prometheus", "prometheus_system", "otel", "opentelemetry"})


@dataclass(frozen=True, slots=True)
class _Common:
    """What holds for every workload."""

    config: Config
    asked: Asked
    findings: list[Finding]
    attempts: int | None
    deadline_ms: int | None
    fallbacks: Mapping[str, tuple[str, ...]]
    """Model name -> model names that take over; `*` is every other one's."""
    aliases: Mapping[str, str]
    """Further name of a model name -> that model name."""
    budgets: Budgets
    balance: str
    """How the deployments of a workload share its calls."""


def import_litellm(files: Mapping[str, str], main: str, asked: Asked) -> Verdict:
    """The workspace and the verdict of the configuration `main` among `files` (name -> text, included files too).

    Raises `Invalid` with every place where the file is not YAML, or not of LiteLLM's form.
    """
    config = read_config(files, main)
    findings: list[Finding] = []
    variables = {key: node for key, node in config.mapping("environment_variables") if not node.empty}
    literal = {key: node.text() or "" for key, node in variables.items() if node.variable is None}
    config.notes.values = literal | {name: value for name, value in asked.values.items() if value}
    reader = EntryReader(asked, variables, findings, credentials_of(config))
    listed = list(config.items("model_list"))
    if not listed:
        raise Invalid(
            f"{main} has no model_list", code="import_empty", where=Where(main, 1),
            hint=next((each for key, each in _WRAPPED.items() if key in config.sections), _IN_DATABASE),
        )  # fmt: skip
    entries = [entry for node in listed if (entry := reader.read(node)) is not None]
    common = _common(config, asked, entries, findings)
    groups = _groups(entries)
    workloads = _workloads(groups, common)
    _settings(config, variables, findings)
    config.check()
    written = {
        "company.yaml": _company(entries, workloads, common),
        "deployments.yaml": _deployments(entries, weights(groups, common.balance, findings)),
        "workloads.yaml": _workload_text(workloads, common),
    }
    if limits := _limit_text(entries, config, findings):
        written["limits.yaml"] = limits
    config.check()
    findings += _numbers_to_say(config)
    validate_files(written, known_price=asked.known_price)
    findings.append(Finding(CHANGED, "stage", _PILOTS, "Raise caps: of the company.", Where(main, 1)))
    if any(entry.type == "chat" for entry in entries):
        here = "images, sound and files in messages are refused until a deployment says what they count at most"
        todo = "Write accepts: with image_tokens: or audio_tokens: of deployments that take them."
        findings.append(Finding(CHANGED, "accepts", here, todo, Where(main, 1)))
    if not all(any(entry.max_output for entry in members) for members in groups.values()):
        here = f"an answer has at most {_MOST_OUTPUT} tokens where max_tokens: is not said, as all of it is reserved"
        findings.append(Finding(CHANGED, "max_tokens", here, "Raise limits.max_output: of workloads.", Where(main, 1)))
    served = sum(body["stage"] != "proposed" for body, _ in workloads)
    ready = sum(not entry.missing for entry in entries)
    return Verdict(written, in_order(findings), len(listed), ready, len(workloads), served)


def _numbers_to_say(config: Config) -> list[Finding]:
    """Of each number that stands in a variable which is not known."""
    told = {node.where: node for node in config.notes.unknown}
    return [
        Finding(
            NEEDED, node.name, "the number stands in a variable: left out", f"Say --set {node.variable}=NUMBER.", where
        )
        for where, node in told.items()
    ]


def _groups(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Model name -> its entries, in the order in which they are preferred."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry)
    return {group: sorted(members, key=lambda entry: entry.order) for group, members in found.items()}


def _common(config: Config, asked: Asked, entries: list[Entry], findings: list[Finding]) -> _Common:
    attempts = _setting(config, "num_retries", findings, "limits.attempts of each workload, retries and one")
    deadline = _setting(config, "timeout", findings, "limits.deadline of each workload")
    other = _setting(config, "request_timeout", findings, "limits.deadline of each workload")
    _setting(config, "stream_timeout", findings, "timeouts.first_token of a deployment; written only where it says so")
    seconds = deadline if deadline is not None else other
    types: dict[str, set[str]] = {}
    for entry in entries:
        types.setdefault(entry.group, set()).add(entry.type)
    aliases = _aliases(config, set(types), findings)
    return _Common(
        config, asked, findings,
        None if attempts is None else min(int(attempts) + 1, 10),
        None if not seconds else max(1, min(int(seconds * 1000), 86_400_000)),
        _fallbacks(config, types, aliases, findings),
        aliases,
        budgets_of(config, asked, findings),
        balance(config, findings),
    )  # fmt: skip


def _setting(config: Config, key: str, findings: list[Finding], here: str) -> Any:
    """A number of `router_settings`, else of `litellm_settings`; both are told."""
    numbers = []
    for section in ("router_settings", "litellm_settings"):
        node = config.get(section, key)
        number = node.number() if node else None
        if node is not None and number is not None:
            findings.append(Finding(CHANGED, f"{section}.{key}", here, "", node.where_key))
            numbers.append(number)
    return numbers[0] if numbers else None


def _fallbacks(
    config: Config, types: Mapping[str, set[str]], aliases: Mapping[str, str], findings: list[Finding]
) -> dict[str, tuple[str, ...]]:
    """`types`: of the deployments of each model name."""
    found: dict[str, tuple[str, ...]] = {}
    also: dict[str, tuple[str, ...]] = {}
    for section in ("router_settings", "litellm_settings"):
        node = config.get(section, "fallbacks")
        for entry in node.entries() if node else ():
            for group, others in entry.items():
                names = tuple(text for other in others.entries() if (text := _name(other, findings)) is not None)
                of = group if group in types else aliases.get(group, group)
                (found if of == group else also).setdefault(of, names)
                state, here, todo = _taken_over(group, of, types.get(of))
                findings.append(Finding(state, f"{section}.fallbacks", here, todo, others.where_key))
        node = config.get(section, "default_fallbacks")
        if node is not None:
            found.setdefault("*", tuple(text for other in node.entries() if (text := other.text()) is not None))
            findings.append(Finding(CARRIED, f"{section}.default_fallbacks", _OF_ALL, "", node.where_key))
    return also | found


def _taken_over(group: str, of: str, types: set[str] | None) -> tuple[str, str, str]:
    """(state, what is here, what to do) of fallbacks of a model name, which may be a further name `of` another."""
    if group == "*":
        return CARRIED, _OF_ALL, ""
    if types is None:
        return NEEDED, f"fallbacks of {one_line(group)}, which is no model of the list", "Declare it."
    if "chat" not in types:
        here = f"{one_line(group)} is asked at its own deployments alone, since only chat goes to another model"
        return NO_EQUAL, here, "Give deployments of the same model the same model_name."
    if of != group:
        return CHANGED, f"fallbacks: of the workload of {one_line(of)}, where it has none of its own", ""
    return CARRIED, "fallbacks: of its workload", ""


def _name(node: Node, findings: list[Finding]) -> str | None:
    if isinstance(node.value, dict):
        here = "a fallback takes over the call as it is, without other parameters"
        findings.append(Finding(NO_EQUAL, "fallbacks", here, "Name a model alone.", node.where))
        return None
    return node.text()


def _workloads(groups: Mapping[str, list[Entry]], common: _Common) -> list[tuple[dict[str, Any], Where]]:
    """Each workload, with its place in the imported file."""
    names: set[str] = set()
    found = []
    talks = any(entry.type == "chat" and not entry.missing for entries in groups.values() for entry in entries)
    for group, entries in groups.items():
        body: dict[str, Any] = {"kind": "workload", "name": unique(slug(group), names)}
        if body["name"] != group:
            body["title"] = one_line(group)
        body |= _called(group, body["name"], common)
        body["purpose"] = f"Calls that LiteLLM served as {one_line(group)}"
        ready = [entry for entry in entries if not entry.missing]
        owner = common.asked.owners.get(group) or common.asked.owners.get("")
        body |= {"stage": "pilot" if ready and owner else "proposed", "sensitivity": "internal"}
        first, later = _by_order(ready)
        body |= _places(first)
        body |= _taking_over(group, first, later, groups, common)
        body |= _limits(entries, common, places=len(first) + len(body.get("fallbacks", ())))
        body |= _reliability(entries, first, common)
        where = entries[0].node.where
        if owner:
            body["owners"] = {"business": owner}
        else:
            todo = f"Say --owner {quote(one_line(group))}=E-MAIL, or --owner E-MAIL for all."
            common.findings.append(
                Finding(NO_OWNER, one_line(group), "without a business owner it stays a proposal", todo, where)
            )
        if ready and talks and "deployments" not in body:
            here = "its keys may also ask any chat deployment, as leaving out deployments: means all of them"
            todo = f"groundplan keys create --workload {body['name']} --model {ready[0].name}"
            common.findings.append(Finding(CHANGED, one_line(group), here, todo, where))
        if not ready:
            here = f"workload {body['name']} stays a proposal: none of its deployments is complete"
            common.findings.append(Finding(NEEDED, one_line(group), here, "Complete one in deployments.yaml.", where))
        found.append((body, where))
    return found


def _called(group: str, name: str, common: _Common) -> dict[str, list[str]]:
    """What its callers say as `model`, and may go on to say, where that is not the workload's name."""
    said = (group, *(alias for alias, other in common.aliases.items() if other == group))
    found = [alias for alias in dict.fromkeys(said) if alias != name and one_line(alias) == alias]
    return {"aliases": found} if found else {}


def _places(ready: list[Entry]) -> dict[str, list[str]]:
    """Deployments by the field of a workload that names their type."""
    found: dict[str, list[str]] = {}
    for entry in ready:
        path = {"chat": "deployments", "embeddings": "embeddings"}.get(entry.type, "also")
        if path in WorkloadDoc.model_fields:
            found.setdefault(path, []).append(entry.name)
    return found


def _by_order(ready: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Deployments that share the calls, and those of a higher `order`, which are only asked when the others fail."""
    lowest = min((entry.order for entry in ready), default=0)
    first = [entry for entry in ready if entry.order == lowest or entry.type != "chat"]
    return first, [entry for entry in ready if entry not in first]


def _taking_over(
    group: str, first: list[Entry], later: list[Entry], groups: Mapping[str, list[Entry]], common: _Common
) -> dict[str, list[str]]:
    own = {entry.name for entry in first}
    names = [entry.name for entry in later]
    wanted = common.fallbacks.get(group, common.fallbacks.get("*", ()))
    for other in (name if name in groups else common.aliases.get(name, name) for name in wanted):
        found = groups.get(other) or [each for entries in groups.values() for each in entries if each.id == other]
        if not found:
            here = f"fallback {one_line(other)} is no model of the list"
            common.findings.append(Finding(NEEDED, one_line(group), here, "Declare it.", groups[group][0].node.where))
        names += [
            entry.name for entry in found
            if not entry.missing and entry.type == "chat" and entry.name not in own | set(names)
        ]  # fmt: skip
    return {"fallbacks": names} if names and any(entry.type == "chat" for entry in first) else {}


def _limits(entries: list[Entry], common: _Common, *, places: int) -> dict[str, Any]:
    deadline = max((entry.deadline_ms for entry in entries if entry.deadline_ms), default=common.deadline_ms)
    attempts = _tries(entries, common)
    output = max((entry.max_output for entry in entries if entry.max_output), default=_MOST_OUTPUT)
    limits: dict[str, Any] = {"max_output": output}
    limits |= {"attempts": min(attempts - 1 + max(places, 1), 10)} if attempts is not None else {}
    limits |= {"deadline": f"{deadline}ms"} if deadline is not None else {}
    return {"limits": limits}


def _tries(entries: list[Entry], common: _Common) -> int | None:
    """Retries and one, None where the file does not say."""
    return max((entry.attempts for entry in entries if entry.attempts), default=common.attempts)


def _reliability(entries: list[Entry], first: list[Entry], common: _Common) -> dict[str, Any]:
    """How calls are shared; where one deployment answers alone, it is also the one that is tried again."""
    tries = _tries(entries, common)
    chat = [entry for entry in first if entry.type == "chat"]
    if len(chat) > 1:
        return {"reliability": {"balance": common.balance}}
    alone = len(chat or first) == 1
    return {"reliability": {"retries": {"same": tries - 1}}} if alone and tries is not None and tries > 1 else {}


def _settings(config: Config, variables: Mapping[str, Node], findings: list[Finding]) -> None:
    """What is said of every setting that nothing else reads."""
    for section, table in TABLES.items():
        for key, node in config.mapping(section):
            read = _BY_CODE.get(key)
            if node.empty or (read is not None and section in read):
                continue
            rule = litellm_settings.unread(read) if read else litellm_settings.rule(table, key)
            rule = rule or litellm_settings.rule(litellm_settings.LITELLM | litellm_settings.ROUTER, key)
            findings.append(told(f"{section}.{one_line(key)}", key, rule or litellm_settings.UNKNOWN, node))
            findings += _secrets_below(f"{section}.{one_line(key)}", node)
        _callbacks(config, section, findings)
    for key, node in variables.items():
        rule = litellm_settings.Rule(CHANGED, "variables are those of the process that serves", "Set it there.")
        findings.append(told(f"environment_variables.{one_line(key)}", key, rule, node))
    for section, nodes in config.sections.items():
        if section in _READ:
            continue
        rule = litellm_settings.SECTIONS.get(section)
        if rule is None:
            findings.append(told(one_line(section), section, litellm_settings.UNKNOWN, nodes[0]))
            findings += [each for part in nodes for each in _secrets_below(one_line(section), part)]
            continue
        for node in (each for part in nodes for each in _parts(part)):
            findings.append(Finding(rule.state, one_line(section), rule.here, rule.todo, node.where))
            findings += _secrets_below(one_line(section), node)
    here = "teams, users and virtual keys are in LiteLLM's database, not in this file"
    todo = "Declare team: and grant:, and make a key for each caller: groundplan keys create --workload NAME."
    findings.append(Finding(NEEDED, "virtual keys", here, todo, Where(config.main, 1)))


def _secrets_below(what: str, node: Node) -> list[Finding]:
    """Literal secrets in the mappings of a setting, however deep."""
    below = list(node.items()) if isinstance(node.value, dict) else []
    below += [("", each) for each in node.entries()] if isinstance(node.value, list) else []
    found = []
    for key, each in below:
        name = f"{what}.{one_line(key)}" if key else what
        if isinstance(each.value, str):
            secret = told(name, key, litellm_settings.UNKNOWN, each)
            found += [replace(secret, here="a secret stands in the file: not copied")] if secret.state == SECRET else []
        else:
            found += _secrets_below(name, each)
    return found


def _parts(node: Node) -> list[Node]:
    if isinstance(node.value, dict):
        return [each for _, each in node.items()] or [node]
    return list(node.entries())


def _aliases(config: Config, groups: set[str], findings: list[Finding]) -> dict[str, str]:
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


def _callbacks(config: Config, section: str, findings: list[Finding]) -> None:
    for key in _CALLBACKS:
        node = config.get(section, key)
        for entry in node.entries() if node else ():
            name = entry.text() or ""
            if name in _HAS_EQUAL:
                here = "traces of calls are sent by OTLP" if "tel" in name else "each gateway has /metrics"
                findings.append(Finding(CARRIED, f"{section}.{key}", here, "", entry.where))
            else:
                rule = litellm_settings.LITELLM["success_callback"]
                findings.append(Finding(rule.state, f"{section}.{key}", rule.here, rule.todo, entry.where))


def _company(entries: list[Entry], workloads: list[tuple[dict[str, Any], Where]], common: _Common) -> str:
    people = sorted({body["owners"]["business"] for body, _ in workloads if "owners" in body})
    body: dict[str, Any] = {"kind": "company", "name": slug(common.asked.company), "format": 1}
    body["separation"] = "solo" if len(people) == 1 else "enforced"
    if len(people) == 1:
        body["owners"] = dict.fromkeys(DUTIES, people[0])
    text = yaml_text.comment([f"Imported from {common.config.main}. Check it offline with: groundplan check"])
    text += yaml_text.lines(body)
    sites = {entry.site["name"]: entry.site for entry in entries if entry.site is not None}
    for site in sites.values():
        text += yaml_text.document(site)
    return text


def _deployments(entries: list[Entry], shares: Mapping[str, int]) -> str:
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


def _workload_text(workloads: list[tuple[dict[str, Any], Where]], common: _Common) -> str:
    text = yaml_text.comment(["Workloads: say in purpose what each is really for. Budgets are hard limits."])
    for body, where in workloads:
        text += yaml_text.document(body, [f"From {where.file}:{where.line}."])
        limit = {"kind": "budget", "name": body["name"], "covers": f"workload/{body['name']}"}
        text += yaml_text.document({**limit, "limit": common.budgets.workload})
    if common.budgets.company is not None:
        name = unique("company", {body["name"] for body, _ in workloads})
        limit = {"kind": "budget", "name": name, "covers": "company", "limit": common.budgets.company}
        text += yaml_text.document(limit)
    return text
