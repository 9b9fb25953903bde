"""Every field about calls reaches the gateways: with another value the blueprint is another one. What else a deployment
or workload says is read elsewhere, and by whom is told here. What a value does there is tested where it is done.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import date
from typing import Any, get_args, get_origin

import pytest

from groundplan.blueprint.artifact import encode
from groundplan.catalog.base import Strict
from groundplan.catalog.check import validate_files
from groundplan.catalog.model import KINDS
from groundplan.release.compile.draft import compile_draft, declared_caps, declared_owners

DAY = date(2026, 11, 25)
CALLS = ("deployment", "workload", "budget", "limit", "tool")
PRICE = {"input": "1 USD/Mtok", "output": "2 USD/Mtok"}
CHECKS = {"personal_data": "mask", "secrets": "mask"}


def place(name: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "deployment", "name": name, "site": "here", "model": f"acme/{name}", "url": f"https://{name}.example/v1",
        "price": PRICE, "context": "32k", **more,
    }  # fmt: skip


BASE: dict[str, dict[str, Any]] = {
    "company": {"kind": "company", "name": "acme", "approvals": {"parts": []}},
    "site": {"kind": "site", "name": "here", "type": "cloud", "jurisdiction": "EU"},
    "there": {"kind": "site", "name": "there", "type": "cloud", "jurisdiction": "SE"},
    "team": {"kind": "team", "name": "sales", "title": "Sales"},
    "source": {
        "kind": "source", "name": "handbook", "path": "./handbook", "sensitivity": "internal",
        "owner": "ana@acme.example", "readers": ["everyone"],
    },
    "other": {
        "kind": "source", "name": "notes", "path": "./notes", "sensitivity": "internal",
        "owner": "ana@acme.example", "readers": ["everyone"],
    },
    "prompt": {"kind": "prompt", "name": "kind-one", "text": "Be kind."},
    "deployment": place(
        "one", key="env:KEY", http=1, tls={"ca": "file:/a", "cert": "file:/b", "key": "file:/c", "server_name": "a.b"},
        provider_terms={"training": False, "retention": "30d"}, image_tokens=9,
        audio_tokens=9, accepts=["image", "audio"],
    ),
    "two": place("two"),
    "three": place("three"),
    "vectors": place("vectors", type="embeddings"),
    "voice": place("voice", type="speech", price={**PRICE, "characters": "15 USD"}),
    "workload": {
        "kind": "workload", "name": "assistant", "purpose": "Answer", "stage": "pilot", "sources": ["handbook"],
        "deployments": ["one"], "fallbacks": ["two"], "owners": {"business": "ana@acme.example"},
        "reliability": {"retries": {"same": 1}, "hedge": {}}, "keep": {"content": "full"},
        "cache": {"answers": "exact"},
        "review": {"before_sending": True},
        "guardrails": {each: dict(CHECKS) for each in ("input", "output", "passages")},
    },
    "budget": {"kind": "budget", "name": "own", "covers": "workload/assistant", "limit": "200 USD/month"},
    "spare": {"kind": "budget", "name": "spare", "covers": "workload/assistant", "limit": "9 USD/day"},
    "limit": {"kind": "limit", "name": "most", "covers": "workload/assistant", "requests": "600/minute"},
    "tool": {
        "kind": "tool", "name": "crm", "url": "https://crm.example/mcp", "owner": "ana@acme.example",
        "workloads": ["assistant"],
    },
}  # fmt: skip

OTHER: dict[str, dict[str, Any]] = {
    "deployment": {
        "site": "there", "model": "acme/uno", "url": "https://uno.example/v1", "key": "env:OTHER",
        "keys": [{"key": "env:A"}],
        "upstream_model": "uno", "api": "anthropic", "serves": ["responses"], "price": "free", "context": "64k",
        "max_output": 99, "accepts": ["image"], "image_tokens": 8, "audio_tokens": 8, "audio": "30m",
        "tokens_per_byte": 1.5, "input_overhead_tokens": 17, "cap_field": "max_completion_tokens",
        "timeouts.connect": "3s", "timeouts.first_token": "3s", "timeouts.idle": "3s", "weight": 3,
        "limits.concurrent": 7, "billing_on_cancel": "drain", "tls.ca": "file:/z", "tls.cert": "file:/z",
        "tls.key": "file:/z", "tls.server_name": "z.z", "http": 2, "proxy": "http://p.example:3128",
        "proxy_key": "env:PROXY", "provider_terms.training": True, "provider_terms.retention": "3d",
        "provider_terms.subprocessors": ["Acme"],
    },
    "workload": {
        "aliases": ["gpt-4.1"], "pattern": "analytics", "audience": "customers", "regimes": ["GDPR"],
        "effect": "decides",
        "stage": "experiment", "sensitivity": "confidential", "residency": ["EU"], "team": "sales",
        "sources": ["notes"],
        "deployments": ["three"], "fallbacks": [], "embeddings": ["vectors"], "also": ["voice"], "prompt": "kind-one",
        "purpose": "Other", "grounding.passages": 5, "grounding.max_size": "7 kB", "grounding.floor": 0.5,
        "grounding.required": False, "grounding.synonyms": True, "needs.purposes": ["hiring"], "needs.quality": "50%",
        "needs.scanned": True, "limits.max_output": 7, "limits.calls_per_day": 7, "limits.people": 7,
        "limits.expires": "2027-01-31", "limits.max_cost_per_call": "7 USD", "limits.attempts": 7,
        "limits.deadline": "7s",
        "reliability.attempts": 7, "reliability.deadline": "7s", "reliability.retries.same": 2,
        "reliability.retries.backoff": "7ms", "reliability.retries.max_backoff": "7s", "reliability.hedge.after": "p90",
        "reliability.hedge.at_most": "7%", "reliability.balance": "weighted", "reliability.on_broken_stream": "resume",
        "reliability.priority": "high", "keep.content": "redacted", "keep.for": "7d", "keep.share": "0.01%",
        "cache.answers": "off", "cache.ttl": "7s", "cache.max_size": "7 MB", "cache.scope": "group",
        "batches.concurrent": 7, "files.max_size": "7 MB", "grace": "7s", "review.share": "0.01%",
        "review.before_sending": False, "review.by": ["ana@acme.example"], "review.within": "7s",
        "review.after": "release", "routing.within": "7s", "routing.risk": "low",
        **{
            f"guardrails.{side}.{check}": done
            for side, more in (
                ("input", {"injection": "block", "deny": ["x"], "max_size": "7 kB", "languages": ["en"]}),
                ("passages", {"injection": "drop"}),
                ("output", {"deny": ["x"], "max_size": "7 kB", "languages": ["en"], "links": ["a.b"], "grounded": True,
                            "schema": {"type": "object"}, "judge": {"deployment": "one", "question": "Is it?"}}),
            )
            for check, done in {"personal_data": "flag", "secrets": "flag", **more}.items()
        },
        "guardrails.input.presidio": "flag", "guardrails.output.presidio": "flag", "guardrails.tools": ["look"],
        "guardrails.entities": [{"name": "badge", "pattern": "B[0-9]{6}"}], "guardrails.mode": "shadow",
        "guardrails.budget": "7ms", "guardrails.on_failure": "open", "guardrails.unchecked": ["image"],
        "guardrails.hold_back": "70 B",
    },
    "budget": {"covers": "company", "limit": "7 USD/month", "hard": False, "starts": 7, "timezone": "Europe/Oslo"},
    "limit": {
        "covers": "company", "requests": "7/minute", "tokens": "7k/minute", "concurrent": 7, "cost": "7 USD/day",
    },
    "tool": {
        "url": "https://z.example/mcp", "key": "env:KEY", "owner": "zoe@acme.example", "tools": ["look"],
        "resources": ["file:x"], "prompts": ["p"], "dangerous": ["look"], "timeout": "7s",
    },
}  # fmt: skip

ELSEWHERE = {
    "title": "shown to people", "type": "what may be said beside it differs", "hosted": "placement",
    "workflow": "reports", "value": "shown to people", "integrations": "shown to people",
    "objectives": "reports, findings",
    "traffic": "placement", "launches": "forecasts", "placement": "placement", "support": "shown to people",
    "risk": "governance", "owners": "governance", "owner": "whom findings are sent to", "workloads": "one is there",
    "grounding.rerank": "another workload's deployment: test_rerank", "cache.semantic": "test_semantic_ways",
    "routing": "test_catalog_routing", "experiment": "test_catalog_experiments", "replay": "test_catalog_experiments",
    "guardrails.output.judge": "a block of its own, which is there",
}  # fmt: skip
"""Fields, or what they begin with, that are about something else or are tried elsewhere."""


def blocks(annotation: Any) -> list[type[Strict]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Strict) else []
    return [] if get_origin(annotation) in (tuple, list, dict) else [m for x in get_args(annotation) for m in blocks(x)]


def fields(model: type[Strict], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{before}{field.alias or name}"
        inner = blocks(field.annotation)
        if inner:
            yield from fields(inner[0], f"{path}.")
        elif path not in ("kind", "name"):
            yield path


def released(changed: str, path: str, value: Any) -> bytes:
    docs = copy.deepcopy(BASE)
    *above, last = path.split(".")
    at = docs[changed]
    for part in above:
        at = at.setdefault(part, {})
    at[last] = value
    if path == "keys":
        del docs[changed]["key"]
    if path == "proxy_key":
        docs[changed]["proxy"] = "http://p.example:3128"
    if path in ("http", "api"):
        docs[changed]["tls"].pop("server_name", None)
    found = validate_files({"a.yaml": "\n---\n".join(json.dumps(each) for each in docs.values())})
    draft = compile_draft(found, None, declared_caps(found), declared_owners(found), today=DAY)
    assert not draft.refusals
    return encode(draft.blueprint)


@pytest.mark.parametrize("kind", CALLS)
def test_every_field_about_calls_changes_what_is_released(kind: str) -> None:
    same = released(kind, "name", BASE[kind]["name"])
    assert [path for path, value in OTHER[kind].items() if released(kind, path, value) == same] == []


@pytest.mark.parametrize("kind", CALLS)
def test_every_field_is_tried_or_is_said_to_be_read_elsewhere(kind: str) -> None:
    left = {path for path in fields(KINDS[kind]) if path not in OTHER[kind]}
    assert [path for path in left if not any(path == of or path.startswith(f"{of}.") for of in ELSEWHERE)] == []
    assert OTHER[kind].keys() <= {*fields(KINDS[kind]), "guardrails.output.judge"}, "what is tried is there"
