"""From declarations to a plan: differences, prices, approvals, refusals with a place; same input, same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from groundplan.blueprint.artifact import encode
from groundplan.catalog.loader import load_files
from groundplan.catalog.model import DUTIES
from groundplan.governance.model import ApprovalStatus, Need
from groundplan.release.model import Current, Plan
from groundplan.release.plan import plan

TODAY = date(2026, 11, 25)

BASE = """\
kind: company
name: acme
approvals: {parts: []}
---
kind: site
name: azure-sweden
type: cloud
jurisdiction: EU
---
kind: site
name: virginia
type: cloud
jurisdiction: US
---
kind: deployment
name: gpt-eu
site: azure-sweden
model: openai/gpt-4.1-mini
url: https://acme.example/openai/v1
key: env:AZURE_KEY
---
kind: deployment
name: gpt-us
site: virginia
model: openai/gpt-4.1-nano
url: https://us.example/v1
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: dana@acme.example
readers: [everyone]
---
kind: workload
name: assistant
purpose: Answer staff questions from the handbook
stage: pilot
sensitivity: internal
residency: [EU]
sources: [handbook]
owners: {business: ana@acme.example, security: sam@acme.example, finance: fay@acme.example}
---
kind: budget
name: assistant
covers: workload/assistant
limit: 200 USD/month
---
kind: budget
name: company
covers: company
limit: 20000 USD/month
"""

PRODUCTION = f"""\
kind: workload
name: support
purpose: Answer customers
stage: production
audience: customers
residency: [EU]
owners: {{{", ".join(f"{duty}: ana@acme.example" for duty in DUTIES)}}}
---
kind: budget
name: support
covers: workload/support
limit: 50 USD/month
"""


def plan_of(
    text: str, current: Current | None = None, standing: ApprovalStatus | None = None, today: date = TODAY
) -> Plan:
    return plan(load_files({"a.yaml": text}), current, today=today, standing=standing)


def current(text: str, result: Plan) -> Current:
    assert result.blueprint is not None
    return Current(result.blueprint, load_files({"a.yaml": text}))


def genesis(text: str = BASE) -> Current:
    return current(text, plan_of(text))


def test_the_first_plan_serves_the_pilot_on_the_allowed_deployment() -> None:
    result = plan_of(BASE)
    assert result.refusals == () and result.pending == ()
    assert result.blueprint is not None and result.blueprint.number == 1
    (workload,) = result.blueprint.workloads
    assert workload.deployments == ["gpt-eu"]
    assert (workload.people, workload.calls_per_day) == (25, 1000)
    assert workload.expires == (TODAY + timedelta(days=90)).isoformat()
    assert workload.budgets == ["assistant", "company"]
    (placement,) = result.placements
    options = {option.deployment: option for option in placement.alternatives}
    assert options["gpt-us"].reasons == ["outside EU"]
    assert options["gpt-eu"].monthly == 3000 * (800 * 400_000 + 200 * 1_600_000)
    assert {item.type for item in result.differences} == {"added"}


def test_the_same_input_gives_the_same_bytes() -> None:
    documents = BASE.split("---\n")
    shuffled = {f"{i}.yaml": text for i, text in enumerate(reversed(documents))}
    first, second = plan_of(BASE).blueprint, plan(load_files(shuffled), None, today=TODAY).blueprint
    assert first is not None and second is not None
    assert encode(first) == encode(second)


def test_applying_the_same_again_another_day_changes_nothing() -> None:
    served = genesis()
    again = plan_of(BASE, served, today=TODAY + timedelta(days=10))
    assert again.differences == () and again.pending == () and again.refusals == ()


def test_a_comment_is_no_change() -> None:
    priced = BASE.replace(
        "url: https://us.example/v1", "url: https://us.example/v1\nprice: {input: 1 USD/Mtok, output: 2 USD/Mtok}"
    )
    commented = plan_of("# above everything\n" + priced, genesis(priced))
    assert commented.differences == ()
    assert plan_of(priced).blueprint == plan_of("# above everything\n" + priced).blueprint


def test_hardware_whose_tokens_have_a_price_too_is_told_once() -> None:
    own = BASE.replace("url: https://us.example/v1", "url: https://us.example/v1\nprice: PRICE", 1)
    rack = "---\nkind: allocation\nname: rack\nterm: capacity\ncost: 9 USD/day\ncapacity: 5M/day\n"
    rack += "covers: deployment/gpt-us\nsource: invoice 7\n"
    priced, free = (own.replace("PRICE", price) for price in ("{input: 1 USD/Mtok, output: 2 USD/Mtok}", "free"))
    (told,) = plan_of(priced + rack, genesis(priced)).notes
    assert told.startswith("deployment/gpt-us: its tokens have a price, and allocation/rack") and "price: free" in told
    assert plan_of(priced + rack, genesis(priced + rack)).notes == (), "it was told before"
    assert plan_of(free + rack, genesis(free)).notes == plan_of(priced, genesis(free)).notes == ()


def test_production_waits_and_the_rest_is_served() -> None:
    result = plan_of(f"{BASE}---\n{PRODUCTION}")
    assert result.refusals == ()
    assert [workload.name for workload in result.blueprint.workloads] == ["assistant"] if result.blueprint else False
    (pending,) = result.pending
    assert pending.subject == "workload/support"
    assert [need.duty for need in pending.needs] == ["business", "security", "finance"]
    assert "workload/support" in {item.subject for item in result.differences}


def test_approved_content_is_served_and_other_content_waits_again() -> None:
    text = f"{BASE}---\n{PRODUCTION}"
    served = current(text, plan_of(text))
    (pending,) = plan_of(text, served).pending
    standing = ApprovalStatus(approved=frozenset({(pending.subject, pending.digest)}))
    result = plan_of(text, served, standing)
    assert result.blueprint is not None and result.pending == ()
    assert [workload.name for workload in result.blueprint.workloads] == ["assistant", "support"]

    after = current(text, result)
    dearer = text.replace("50 USD/month", "60 USD/month")
    waiting = plan_of(dearer, after, standing)
    assert [need.duty for need in waiting.needs] == ["business", "security", "finance"]
    assert waiting.blueprint is not None
    kept = {budget.name: budget.limit for budget in waiting.blueprint.budgets}
    assert kept["support"] == 50 * 10**12, "what waits stays as it is served now"


def test_a_deployment_of_approved_content_cannot_be_changed_underneath_it() -> None:
    text = f"{BASE}---\n{PRODUCTION}"
    (pending,) = plan_of(text).pending
    standing = ApprovalStatus(approved=frozenset({(pending.subject, pending.digest)}))
    after = current(text, plan_of(text, None, standing))
    moved = plan_of(text.replace("https://acme.example/openai/v1", "https://elsewhere.example/v1"), after, standing)
    assert [item.subject for item in moved.pending] == ["workload/support"]
    assert moved.blueprint is not None
    urls = {deployment.name: deployment.url for deployment in moved.blueprint.deployments}
    assert urls["gpt-eu"] == "https://acme.example/openai/v1"


def test_revoked_content_is_left_out_even_where_it_is_served() -> None:
    text = f"{BASE}---\n{PRODUCTION}"
    (pending,) = plan_of(text).pending
    pair = frozenset({(pending.subject, pending.digest)})
    after = current(text, plan_of(text, None, ApprovalStatus(approved=pair)))
    result = plan_of(text, after, ApprovalStatus(revoked=pair))
    assert result.blueprint is not None
    assert [workload.name for workload in result.blueprint.workloads] == ["assistant"]


def test_a_raised_company_budget_waits_for_finance_and_a_lowered_one_does_not() -> None:
    served = genesis()
    raised = plan_of(BASE.replace("20000 USD", "30000 USD"), served)
    assert raised.needs == (Need("company", "finance"),)
    assert raised.blueprint is not None
    assert {b.name: b.limit for b in raised.blueprint.budgets}["company"] == 20_000 * 10**12
    lowered = plan_of(BASE.replace("20000 USD", "10000 USD"), served)
    assert lowered.needs == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("limit: 20000 USD/month", "limit: 20000 USD/month\nhard: false"),
        ("limit: 20000 USD/total", "limit: 20000 USD/month"),
        ("covers: company", "covers: team/care"),
    ],
)
def test_a_company_budget_that_would_hold_for_less_waits_for_finance(before: str, after: str) -> None:
    text = f"{BASE}---\nkind: team\nname: care\ntitle: Care\n"
    text = text if before in text else text.replace("limit: 20000 USD/month", before)
    served = genesis(text)
    looser = plan_of(text.replace(before, after), served)
    assert looser.refusals == () and looser.needs == (Need("company", "finance"),)
    assert looser.blueprint is not None
    old, kept = ({b.name: b for b in each.budgets}["company"] for each in (served.blueprint, looser.blueprint))
    assert kept == old and looser.blueprint.workloads[0].budgets == ["assistant", "company"]
    back = plan_of(text, current(text.replace(before, after), plan_of(text.replace(before, after))))
    assert back.needs == (), "to hold for more needs nobody"


@pytest.mark.parametrize(
    "after", ["20000 USD/month\ntimezone: Europe/Oslo", "20000 USD/month\nstarts: 15", "600 USD/day", "90 USD/year"]
)
def test_a_company_budget_of_another_calendar_waits_for_finance(after: str) -> None:
    """In it nothing is spent yet: where this month's amount is used up, it would be there once more."""
    changed = BASE.replace("20000 USD/month", after)
    waiting = plan_of(changed, genesis())
    assert waiting.refusals == () and waiting.needs == (Need("company", "finance"),)
    assert waiting.blueprint is not None
    assert {b.name: (b.period, b.starts, b.timezone) for b in waiting.blueprint.budgets}["company"] == (
        "month", "", "UTC",
    )  # fmt: skip
    back = plan_of(BASE, current(changed, plan_of(changed)))
    assert back.needs == (Need("company", "finance"),), "the month goes on, with what was left of it"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("name: assistant\ncovers", "name: other\ncovers", "budget/other: it replaces budget/assistant,"),
        ("limit: 200 USD/month", "limit: 200 USD/week", "budget/assistant: its period changes,"),
    ],
)
def test_a_budget_that_starts_again_is_told(before: str, after: str, told: str) -> None:
    (note,) = plan_of(BASE.replace(before, after), genesis(BASE)).notes
    assert note.startswith(told) and "what was spent" in note


def test_budgets_that_keep_their_name_and_period_or_are_new_start_as_usual() -> None:
    for text in (
        BASE,
        BASE.replace("200 USD/month", "300 USD/month"),
        BASE + "---\nkind: budget\nname: more\ncovers: workload/assistant\nlimit: 9 USD/day\n",
    ):
        assert plan_of(text, genesis(BASE)).notes == ()


def test_a_company_budget_that_is_taken_away_waits_for_finance() -> None:
    """Else a larger one by another name would need nobody; one that covers nobody, or only warned, may go."""
    without = BASE.partition("---\nkind: budget\nname: company")[0]
    served = genesis()
    gone = plan_of(without, served)
    assert gone.needs == (Need("company", "finance"),) and gone.blueprint is not None
    assert gone.blueprint.budgets == served.blueprint.budgets
    assert gone.blueprint.workloads == served.blueprint.workloads
    (pending,) = gone.pending
    approved = plan_of(without, served, ApprovalStatus(approved=frozenset({(pending.subject, pending.digest)})))
    assert approved.blueprint is not None and [b.name for b in approved.blueprint.budgets] == ["assistant"]
    for free in ("hard: false", "covers: team/care"):
        text = f"{BASE}{free}\n" if "hard" in free else BASE.replace("covers: company", free)
        text += "---\nkind: team\nname: care\ntitle: Care\n"
        assert plan_of(without, genesis(text)).needs == ()


def test_raised_caps_wait_and_meanwhile_the_lower_ones_hold() -> None:
    served = genesis()
    raised = plan_of(BASE.replace("name: acme\n", "name: acme\ncaps: {people: 100, calls_per_day: 500}\n"), served)
    assert [need.duty for need in raised.needs] == ["business", "security"]
    assert raised.blueprint is not None
    assert (raised.blueprint.caps.people, raised.blueprint.caps.calls_per_day) == (25, 500)
    assert raised.blueprint.workloads[0].people == 25


def test_a_pilot_beyond_the_caps_waits_and_a_narrower_one_is_served() -> None:
    served = genesis()
    wide = plan_of(BASE.replace("stage: pilot\n", "stage: pilot\nlimits: {people: 26}\n"), served)
    assert [item.subject for item in wide.pending] == ["workload/assistant"]
    narrow = plan_of(BASE.replace("stage: pilot\n", "stage: pilot\nlimits: {people: 5}\n"), served)
    assert narrow.pending == () and narrow.blueprint is not None
    assert narrow.blueprint.workloads[0].people == 5
    (difference,) = narrow.differences
    assert [(f.field, f.old, f.new) for f in difference.fields] == [("people", "25", "5")]


def test_refusals_carry_their_place() -> None:
    text = BASE.replace("sources: [handbook]\n", "sources: [handbook]\ndeployments: [gpt-us]\n")
    result = plan_of(text)
    assert result.blueprint is None
    (problem,) = result.refusals
    assert problem.where is not None and problem.where.file == "a.yaml"
    assert text.splitlines()[problem.where.line - 1].startswith("deployments:")
    assert result.placements, "prices are shown beside a refusal"


@pytest.mark.parametrize("key", ["deployments", "fallbacks", "embeddings"])
def test_no_deployment_of_a_chain_may_weaken_residency_or_sensitivity(key: str) -> None:
    """Refused at the line that names it, whatever its place in the chain."""
    strong = "vectors-eu" if key == "embeddings" else "gpt-eu"
    weak = "vectors-us" if key == "embeddings" else "gpt-us"
    chain = f"sources: [handbook]\n{key}:\n  - {strong}\n  - {weak}\n"
    text = BASE.replace("sources: [handbook]\n", chain) + "".join(
        f"---\nkind: deployment\nname: vectors-{place}\nsite: {site}\nmodel: openai/text-embedding-3-small\n"
        f"type: embeddings\nurl: https://{place}.example/v1\n"
        for place, site in (("eu", "azure-sweden"), ("us", "virginia"))
    )
    problem = next(found for found in plan_of(text).refusals if found.code == "outside_residency")
    assert weak in problem.message and problem.where is not None and problem.where.file == "a.yaml"
    assert text.splitlines()[problem.where.line - 1] == f"  - {weak}"
    secret = text.replace("sensitivity: internal\nresidency: [EU]", "sensitivity: restricted")
    lines = {secret.splitlines()[p.where.line - 1] for p in plan_of(secret).refusals if p.where and "trusted" in p.code}
    assert lines == {f"  - {strong}", f"  - {weak}"}


def test_balanced_calls_are_shared_by_what_is_no_fallback() -> None:
    rule = "reliability: {balance: weighted, attempts: 4, deadline: 9s, hedge: {after: p90, at_most: 2%}}\n"
    text = BASE.replace("residency: [EU]\n", "").replace(
        "sources: [handbook]\n", f"sources: [handbook]\ndeployments: [gpt-eu]\nfallbacks: [gpt-us]\n{rule}"
    )
    blueprint = plan_of(text).blueprint
    assert blueprint is not None
    (workload,) = blueprint.workloads
    assert workload.deployments == ["gpt-eu", "gpt-us"]
    made = workload.reliability
    assert (made.balance, made.peers, workload.attempts, workload.deadline_ms) == ("weighted", 1, 4, 9000)
    assert made.hedge is not None and (made.hedge.percentile, made.hedge.after_ms, made.hedge.at_most) == (
        90,
        None,
        0.02,
    )


def test_nothing_allowed_is_refused_at_the_rule_that_excludes_all() -> None:
    text = BASE.replace("residency: [EU]", "residency: [CH]")
    (problem,) = plan_of(text).refusals
    assert problem.code == "placement_none" and problem.where is not None
    assert "residency" in text.splitlines()[problem.where.line - 1]


def test_an_unknown_price_is_refused_once() -> None:
    problems = plan_of(BASE.replace("openai/gpt-4.1-mini", "acme/own-model")).refusals
    assert [problem.code for problem in problems].count("price_missing") == 1


def test_an_unknown_name_refuses_without_a_crash() -> None:
    result = plan_of(BASE.replace("sources: [handbook]", "sources: [handbok]"))
    assert result.blueprint is None and "handbook" in result.refusals[0].hint


def test_people_are_not_changed_through_files_after_genesis() -> None:
    person = "---\nkind: person\nname: ben\nemail: ben@acme.example\n"
    served = genesis(BASE + person)
    (problem,) = plan_of(BASE + person.replace("name: ben", "name: benno"), served).refusals[:1]
    assert problem.code == "people_are_live" and "groundplan people" in problem.hint
    (added,) = plan_of(BASE + person + "---\nkind: group\nname: hr\nmembers: [ben]\n", served).refusals
    assert added.where is not None and "group hr" in added.message


def test_what_no_database_has_of_people_is_changed_through_files_at_any_time() -> None:
    people = (
        "---\nkind: person\nname: ben\nemail: ben@acme.example\njob: Clerk\n---\nkind: group\nname: hr\ntitle: HR\n"
    )
    served = genesis(BASE + people)
    changed = people.replace("job: Clerk", "job: Head of people").replace("title: HR", "title: Human resources")
    assert plan_of(BASE + changed, served).refusals == ()


def test_work_goes_to_a_team_that_was_not_there_at_genesis() -> None:
    team = "---\nkind: team\nname: {}\n{}"
    care = team.format("care", "members: [ben]\n")
    person = "---\nkind: person\nname: ben\nemail: ben@acme.example\n"
    text = BASE.replace("sources: [handbook]\n", "sources: [handbook]\nteam: care\n", 1) + person + care
    served = genesis(text)
    moved = text.replace("\nteam: care\n", "\nteam: service\n")
    result = plan_of(moved + team.format("service", "title: Service\n"), served)
    assert result.refusals == ()
    assert [(f.field, f.old, f.new) for d in result.differences for f in d.fields] == [("team", "care", "service")]
    for people in ("members: [ben]\n", "lead: ben\n", "includes: [care]\n"):
        (problem,) = plan_of(moved + team.format("service", people), served).refusals
        assert problem.code == "people_are_live" and "groups add" in problem.hint
    (emptied,) = plan_of(text.replace(care, team.format("care", "")), served).refusals
    assert emptied.code == "people_are_live", "its people would seem to be gone"


def test_separation_does_not_go_back_to_solo() -> None:
    result = plan_of(BASE.replace("name: acme\n", "name: acme\nseparation: solo\n"), genesis())
    assert "separation_weaker" in {problem.code for problem in result.refusals}


def test_proposed_and_retired_workloads_are_not_served() -> None:
    for stage in ("proposed", "retired"):
        result = plan_of(BASE.replace("stage: pilot", f"stage: {stage}"))
        assert result.blueprint is not None
        assert (result.blueprint.workloads, result.blueprint.sources, result.pending) == ([], [], ())


def test_a_plan_as_json_has_exact_amounts() -> None:
    value = plan_of(BASE).to_json()
    (placement,) = value["placements"]
    prices = {option["deployment"]: option["monthly_usd"] for option in placement["alternatives"]}
    assert prices["gpt-eu"] == "1.920000000000"


SEEDED = """\
import hashlib, sys
from datetime import date
from pathlib import Path
from groundplan.blueprint.artifact import encode
from groundplan.catalog.loader import load_files
from groundplan.release.plan import plan

root = Path(sys.argv[1])
found = sorted(root.rglob("*.yaml"), reverse=len(sys.argv) > 2)
files = {str(path.relative_to(root)): path.read_text() for path in found}
blueprint = plan(load_files(files), None, today=date(2026, 11, 25)).blueprint
print(hashlib.sha256(encode(blueprint)).hexdigest())
"""


def test_the_same_input_gives_the_same_bytes_in_any_process() -> None:
    """Neither the order in which sets are walked nor that in which files are read shows in the bytes."""
    company = str(Path(__file__).parents[2] / "examples" / "company")
    digests = {
        subprocess.run(
            [sys.executable, "-c", SEEDED, company, *reverse],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, reverse in (("0", ()), ("77", ("reverse",)))
    }
    assert len(digests) == 1 and len(digests.pop().strip()) == 64


@pytest.mark.parametrize(
    ("now", "wanted", "looser"),
    [
        ("seats: 2", "seats: 1", {"seats": ("2", "1")}),
        ("valid_days: 90", "valid_days: 365", {"valid_days": ("90", "365")}),
        ("grace_days: 0", "grace_days: 30", {"grace_days": ("0", "30")}),
        ("seats: 1", "seats: 3", {}),
        ("valid_days: 365", "valid_days: 30", {}),
        ("grace_days: 9", "grace_days: 2", {}),
        ("seats: 2", "seats: 2, remind_days: 9", {}),
    ],
)
def test_asking_fewer_people_or_for_longer_waits_and_being_stricter_does_not(
    now: str, wanted: str, looser: dict[str, tuple[str, str]]
) -> None:
    text = BASE.replace("parts: []", f"parts: [], {now}")
    served = genesis(text)
    result = plan_of(text.replace(now, wanted), served)
    assert result.blueprint is not None and result.blueprint.approval_terms is not None
    if not looser:
        assert result.pending == ()
        return
    (pending,) = result.pending
    assert [(each.subject, each.duty) for each in pending.needs] == [("company", "business"), ("company", "security")]
    assert {each.field: (each.old, each.new) for each in pending.fields} == {
        f"approvals.{name}": values for name, values in looser.items()
    }
    assert result.blueprint.approval_terms == served.blueprint.approval_terms, "the stricter ones hold meanwhile"
    agreed = ApprovalStatus(approved=frozenset({(pending.subject, pending.digest)}))
    then = plan_of(text.replace(now, wanted), served, agreed)
    assert then.pending == () and then.blueprint is not None
    assert then.blueprint.approval_terms != served.blueprint.approval_terms
    assert plan_of(text.replace(now, wanted), current(text.replace(now, wanted), then)).pending == ()
