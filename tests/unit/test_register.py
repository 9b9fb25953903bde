"""The register: everything that AI is made of with owner, version, evaluations and the next look; and what is twice."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

from groundplan.catalog.loader import load_files
from groundplan.governance.register.bom import ml_bom
from groundplan.governance.register.cards import card_markdown
from groundplan.governance.register.entries import Entry, build_register, overlaps
from groundplan.release.plan import plan

TODAY = date(2026, 11, 25)
WORKSPACE = """\
{kind: company, name: acme, approvals: {parts: []}}
---
{kind: team, name: sales}
---
{kind: team, name: service}
---
{kind: site, name: here, type: private, jurisdiction: EU, owner: ana@acme.example}
---
{kind: deployment, name: one, site: here, model: acme/m, upstream_model: m-2026-10, url: "http://127.0.0.1:9/v1",
 price: {input: 0 USD/Mtok, output: 1 USD/Mtok}}
---
{kind: prompt, name: polite, version: 3, text: Be polite., owner: ana@acme.example}
---
{kind: integration, name: crm-a, direction: downstream, system: CRM, owner: ana@acme.example}
---
{kind: integration, name: crm-b, direction: downstream, system: crm}
---
{kind: tool, name: crm, url: "https://crm.example/mcp", owner: ana@acme.example, workloads: [first],
 tools: [refund, look]}
---
{kind: tool, name: shop, url: "https://shop.example/mcp", owner: ana@acme.example, workloads: [second], tools: [refund]}
---
{kind: workload, name: first, team: sales, purpose: Sell, stage: pilot, deployments: [one], prompt: polite,
 integrations: [crm-a], owners: {business: ana@acme.example, security: sam@acme.example}}
---
{kind: workload, name: second, team: service, purpose: Help, stage: pilot, deployments: [one],
 integrations: [crm-b], owners: {business: ana@acme.example, security: sam@acme.example}}
---
{kind: budget, name: first, covers: workload/first, limit: 1 USD/month}
---
{kind: budget, name: second, covers: workload/second, limit: 1 USD/month}
"""


def entries(text: str = WORKSPACE) -> dict[str, Entry]:
    workspace = load_files({"a.yaml": text})
    made = plan(workspace, None, today=TODAY)
    assert made.blueprint is not None, made.refusals
    found = build_register(
        workspace, made.blueprint, evaluated={"first": ("Right in 93 of 100 (until 2027-01-01)",)},
        ends={"model/acme/m": date(2027, 2, 3), "prompt/polite": date(2027, 3, 4)},
    )  # fmt: skip
    return {f"{each.kind}/{each.name}": each for each in found}


def test_each_thing_has_its_version_owner_evaluations_and_next_look() -> None:
    found = entries()
    model, prompt, tool = found["model/acme/m"], found["prompt/polite"], found["tool/crm"]
    assert (model.version, model.review_by, model.used_by) == ("m-2026-10", "2027-02-03", ("first", "second"))
    assert model.evaluations == ("first: Right in 93 of 100 (until 2027-01-01)",)
    assert found["workload/first"].evaluations == ("Right in 93 of 100 (until 2027-01-01)",)
    assert found["workload/second"].evaluations == ()
    assert (prompt.version, prompt.review_by, prompt.owner) == ("3", "2027-03-04", "ana@acme.example")
    assert (tool.origin, tool.owner, tool.used_by) == ("crm.example", "ana@acme.example", ("first",))
    assert len(tool.digest) == 64 and tool.digest != found["tool/shop"].digest
    assert "Right in 93 of 100" in card_markdown(model, TODAY) and "2027-02-03" in card_markdown(model, TODAY)


def test_a_price_beyond_the_integers_of_canonical_json_has_a_digest() -> None:
    dear, dearer = (
        entries(WORKSPACE.replace("output: 1 USD", f"output: {dollars} USD"))["deployment/one"].digest
        for dollars in (900_000, 900_001)
    )
    assert len(dear) == 64 and dear != dearer


def test_what_two_teams_have_twice_is_named_with_them() -> None:
    found = overlaps(list(entries().values()), {"first": "sales", "second": "service"})
    assert [(each["system"], each["integrations"], each["tools"], each["teams"]) for each in found] == [
        ("CRM", ["crm-a", "crm-b"], [], ["sales", "service"]),
        ("function refund", [], ["crm", "shop"], ["sales", "service"]),
    ]
    assert overlaps([each for each in entries().values() if each.name not in ("crm-b", "shop")]) == []


def test_tools_are_services_of_the_bill_of_materials() -> None:
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 -- heavy: not for whoever only collects tests
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    bom = ml_bom(list(entries().values()), "acme", 1, datetime(2026, 11, 25, tzinfo=UTC))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None
    assert {"tool/crm", "tool/shop", "deployment/one"} == {each["bom-ref"] for each in bom["services"]}
