"""The workspace of the chaos suite: its workloads, and the budgets and limits that are used up in a round."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from groundplan.core.money import from_decimal
from tests.acceptance.chaos_books import Limit
from tests.acceptance.stack import Upstream

TOKENS = 10
TIGHT = ("tight-0", "tight-1", "tight-2", "tight-3", "tight-4")
"""One workload for each round: its own budget, its team's or its key's is used up during the round."""
RESTRICTED = "secret"
"""A workload of restricted data: a gateway without its database refuses it as soon as the policy lease ends."""
GROUNDED = "grounded"
"""A workload that answers from a source, whose permissions are read from PostgreSQL for every call."""
COUNTED = ("counted-requests", "counted-tokens", "counted-cost")
"""One workload in each round: its limit, and half of it for one of its two keys, are used up in the round."""
OWN_LIMIT = "-own"
"""Suffix of the name of a key that has a limit of its own."""
HEDGED = "hedged"
"""A workload whose slow attempts are hedged."""
KINDS = (*TIGHT, "steady", "cached", HEDGED, RESTRICTED, GROUNDED, *COUNTED)
MOST = {"requests": "10", "tokens": "500", "cost": "0.0016 USD"}
"""What is counted -> the amount per minute of a workload's limit."""
HALF = {"requests": "5", "tokens": "250", "cost": "0.0008 USD"}
"""What is counted -> the amount per minute of a key's own limit."""
COST = 0.0002
"""About what a call may cost at most, in USD."""
WORKLOAD = """---
kind: workload
name: {name}
purpose: Calls that go on whatever is killed
audience: employees
stage: pilot
sensitivity: {sensitivity}
team: {team}
owners: {{business: you@company.example}}
deployments: [one]
fallbacks: [two]
embeddings: [vectors-one, vectors-two]
limits: {{max_output: 64, deadline: 25s, attempts: 6}}
reliability: {{on_broken_stream: resume{hedge}}}
{more}---
kind: budget
name: {name}
covers: workload/{name}
limit: {limit} USD/month
"""
COMPANY = """kind: company
name: chaos
format: 1
separation: solo
caps: {{people: unlimited, calls_per_day: unlimited, sensitivity: restricted}}
owners: {{business: you@company.example, product: you@company.example, architecture: you@company.example,
  engineering: you@company.example, operations: you@company.example, security: you@company.example,
  finance: you@company.example, data: you@company.example, compliance: you@company.example}}
---
kind: person
name: you
email: you@company.example
---
kind: team
name: wide
members: [you]
---
kind: team
name: narrow
members: [you]
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: budget
name: company
covers: company
limit: 100 USD/month
---
kind: budget
name: wide
covers: team/wide
limit: 100 USD/month
---
kind: budget
name: narrow
covers: team/narrow
limit: {narrow} USD/month
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: you@company.example
readers: [everyone]
"""
HANDBOOK = """# Leave

Employees have 28 days of paid leave a year. Leave is asked for in the portal of the staff, two weeks ahead.
"""
LIMIT = """---
kind: limit
name: {name}
covers: {covers}
{counts}: {most}/minute
"""
DEPLOYMENT = """---
kind: deployment
name: {name}
site: here
model: scripted
upstream_model: scripted
url: {url}
price: {{input: 0.37 USD/Mtok, output: 10 USD/Mtok}}
context: 8k
billing_on_cancel: {cancel}
timeouts: {{connect: 1s, first_token: 2s, idle: 1500ms}}
---
kind: deployment
name: vectors-{name}
type: embeddings
site: here
model: scripted-vectors
upstream_model: scripted
url: {url}
price: {{input: 1 USD/Mtok, output: 0 USD/Mtok}}
context: 8k
timeouts: {{connect: 1s, first_token: 2s, idle: 1500ms}}
"""


def declare(folder: Path, upstreams: dict[str, Upstream], tight: float) -> Path:
    """Write the workspace. `tight`: the limit in USD of those budgets that are used up in a round."""
    folder.mkdir(parents=True)
    (folder / "handbook").mkdir()
    (folder / "handbook" / "leave.md").write_text(HANDBOOK)
    (folder / "company.yaml").write_text(COMPANY.format(narrow=tight))
    cancels = ("generated", "drain")
    texts = [
        DEPLOYMENT.format(name=name, url=upstream.url, cancel=cancel)
        for (name, upstream), cancel in zip(upstreams.items(), cancels, strict=True)
    ]
    for name in KINDS:
        limit = tight if name in ("tight-0", "tight-3", "tight-4") else 100
        more = "cache: {answers: exact, ttl: 1h}\n" if name == "cached" else ""
        more += "sources: [handbook]\ngrounding: {max_size: 1500 B}\n" if name == GROUNDED else ""
        more += "" if name == RESTRICTED else "grace: 60s\n"
        hedge = ", hedge: {after: 40ms, at_most: 100%}" if name == HEDGED else ""
        team = "narrow" if name == "tight-1" else "wide"
        level = "restricted" if name == RESTRICTED else "internal"
        texts.append(WORKLOAD.format(name=name, team=team, limit=limit, sensitivity=level, more=more, hedge=hedge))
    (folder / "rest.yaml").write_text("".join(texts).removeprefix("---\n"))
    return folder


def declare_limits(file: Path, limited_keys: dict[str, str]) -> tuple[Limit, ...]:
    """Write the limits of the counted workloads; `limited_keys`: workload -> id of its key with a limit of its own."""
    texts, limits = [], []
    for workload, id in limited_keys.items():
        counts = workload.partition("-")[2]
        for name, covers, most in (
            (workload, f"workload/{workload}", MOST[counts]),
            (workload + OWN_LIMIT, f"key/{id}", HALF[counts]),
        ):
            texts.append(LIMIT.format(name=name, covers=covers, counts=counts, most=most))
            amount = from_decimal(Decimal(most.removesuffix(" USD"))) if counts == "cost" else int(most)
            limits.append(Limit(name, covers, counts, amount))
    file.write_text("".join(texts).removeprefix("---\n"))
    return tuple(limits)
