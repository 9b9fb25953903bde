"""Controls over the API: evidence from facts and from people, and documents that others' tools accept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.stack import wait_until
from tests.integration.nursery import run_command
from tests.integration.test_api_control import Control, run_control

from groundplan.core.database import connect
from groundplan.testing.database import Cluster, Database

FRAMEWORKS = """\
kind: framework
name: nist-ai-rmf
owner: sam
profile: tier-1
excluded: [{control: GOVERN 4.1, reason: The group's policy holds.}]
---
kind: framework
name: house-rules
title: House rules
owner: sam
controls:
  - {id: H1, title: It has a budget, needs: [budget.hard]}
  - {id: H2, title: A risk is assessed, needs: [risk.assessed]}
  - {id: H3, title: It was tried by users, needs: [document]}
"""


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("controls")
    (folder / "workspace").mkdir()
    (folder / "workspace" / "frameworks.yaml").write_text(FRAMEWORKS)
    with postgres_cluster.database() as database, run_control(database, folder) as found:
        yield found


def states(control: Control, name: str = "house-rules") -> dict[str, str]:
    board = control.ask("GET", f"/api/frameworks/{name}").body
    return {each["id"]: each["workloads"]["assistant"]["state"] for each in board["controls"]}


def test_evidence_whose_time_is_over_is_told_as_expired_wherever_it_is_told(database: Database, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "frameworks.yaml").write_text(FRAMEWORKS)
    with run_control(database, tmp_path, module="groundplan.console.app") as control:
        given = {"what": "house-rules/H3", "workload": "assistant", "type": "test", "says": "Ten people tried it."}
        id = control.ask("POST", "/api/evidence", given).body["id"]
        told: list[tuple[str, bool, bytes, str]] = []
        for end in ("now() + interval '1 hour'", "now()"):
            with connect(database.urls["owner"]) as conn:
                conn.execute(f"UPDATE evidence SET valid_until = {end} WHERE id = %s", (id,))
            (row,) = control.ask("GET", "/api/evidence?what=house-rules/H3").body["evidence"]
            page = control.ask("GET", "/governance/evidence?what=house-rules/H3", **control.sign_in()).body
            badge = page.partition(b'data-label="Valid">')[2].partition(b"</span>")[0].rpartition(b">")[2]
            told.append((states(control)["H3"], row["expired"], badge, _listed(control, "house-rules/H3")))
        assert told == [("satisfied", False, b"yes", "yes"), ("expired", True, b"expired", "expired")]


def _listed(control: Control, what: str) -> str:
    """What the command says of the only piece of evidence."""
    environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{control.port}"}
    command = ["evidence", "list", "--what", what, "--home", str(control.home.root)]
    row = run_command(command, environment, timeout=60).stdout.splitlines()[-1]
    return row.partition("workload/assistant")[2].split()[0]


def test_facts_satisfy_controls_and_people_show_the_rest(control: Control) -> None:
    first = control.ask("POST", "/api/evidence/collect").body
    judged = first["added"] + first["kept"]  # what is collected beside the requests may have come first
    assert judged > 20
    kept = {"added": 0, "kept": judged}  # once nothing of a start is still under way, such as a log being sealed
    wait_until(lambda: control.ask("POST", "/api/evidence/collect").body == kept, 60, "nothing is kept twice")
    assert states(control) == {"H1": "satisfied", "H2": "open", "H3": "open"}
    given = control.ask(
        "POST", "/api/evidence",
        {"what": "house-rules/H3", "workload": "assistant", "type": "test", "says": "Ten people tried it.", "days": 30,
         "sha256": "a" * 64, "link": "https://files.acme.example/trial.pdf"},
    )  # fmt: skip
    assert given.status == 200, given.body
    assert states(control)["H3"] == "satisfied"
    listed = control.ask("GET", "/api/evidence?what=house-rules/H3").body["evidence"]
    shown = [each for each in listed if each["id"] == given.body["id"]]
    assert [(each["says"], each["collector"], each["detail"]) for each in shown] == [
        ("Ten people tried it.", "operator", {"sha256": "a" * 64})
    ]
    wait_until(lambda: control.ask("GET", f"/api/audit/{shown[0]['audit_entry']}/proof").status == 200, 60, "a proof")
    back = control.ask("POST", f"/api/evidence/{given.body['id']}/withdraw", {"reason": "It was another version."})
    assert back.status == 200 and states(control)["H3"] == "open"
    assert (
        control.ask("POST", f"/api/evidence/{given.body['id']}/withdraw", {"reason": "again"}).code
        == "evidence_unknown"
    )


def test_what_facts_show_nobody_can_give(control: Control) -> None:
    body = {"what": "budget.hard", "workload": "assistant", "says": "Trust me."}
    assert control.ask("POST", "/api/evidence", body).code == "evidence_collected"
    assert control.ask("POST", "/api/evidence", {**body, "what": "no-such"}).code == "evidence_unknown"
    assert control.ask("POST", "/api/evidence", {**body, "what": "a/b", "workload": "nobody"}).status == 404
    assert control.ask("POST", "/api/evidence", {**body, "what": "a/b", "link": "javascript:alert(1)"}).status == 422
    assert control.ask("GET", "/api/frameworks/absent").code == "framework_unknown"


def test_frameworks_are_summed_up_with_what_is_left_out(control: Control) -> None:
    found = {each["name"]: each for each in control.ask("GET", "/api/frameworks").body["frameworks"]}
    counts = found["nist-ai-rmf"]["coverage"]["assistant"]
    assert (counts["apply"], counts["excluded"]) == (17, 1) and found["nist-ai-rmf"]["owner"] == "sam@acme.example"
    statement = control.ask("GET", "/api/exports/applicability/nist-ai-rmf").body["controls"]
    assert [each["reason"] for each in statement if not each["applies"]] == ["The group's policy holds."]


def test_a_management_review_sees_what_moved_and_what_is_to_be_put_right(control: Control) -> None:
    given = {"what": "house-rules/H3", "workload": "assistant", "says": "Twenty tried it.", "days": 30}
    id = control.ask("POST", "/api/evidence", given).body["id"]
    held = control.ask("POST", "/api/evidence", {"what": "review.periodic", "says": "All went well.", "type": "review"})
    assert held.status == 200
    control.ask("POST", f"/api/evidence/{id}/withdraw", {"reason": "It was another version."})
    review = control.ask("GET", "/api/management-review").body
    assert review["last_review"]["says"] == "All went well."
    (house,) = [each for each in review["frameworks"] if each["name"] == "house-rules"]
    assert [(each["control"], each["before"], each["now"]) for each in house["drift"]] == [("H3", "satisfied", "open")]
    assert {"workload": "assistant", "control": "H3", "title": "It was tried by users", "state": "open"} in house[
        "gaps"
    ]
    short = control.ask("GET", "/api/management-review?limit=1").body["frameworks"]
    (short,) = [each for each in short if each["name"] == "house-rules"]
    assert (short["gaps"], short["more_gaps"]) == (house["gaps"][:1], len(house["gaps"]) - 1) and not house["more_gaps"]
    wanted = {"says": "Try it again", "control": "house-rules/H3", "workload": "assistant", "owner": "sam@acme.example"}
    assert control.ask("POST", "/api/actions", {**wanted, "due": "2020-01-01"}).code == "action_due"
    assert (
        control.ask("POST", "/api/actions", {**wanted, "due": "2999-01-01", "owner": "no@acme.example"}).status == 404
    )
    made = control.ask("POST", "/api/actions", {**wanted, "due": "2999-01-01"})
    assert made.status == 201, made.body
    (action,) = control.ask("GET", "/api/management-review").body["actions"]
    assert (action["owner"], action["severity"], action["closed_at"]) == ("sam@acme.example", "medium", None)
    closed = control.ask("POST", f"/api/findings/{made.body['finding']}/close", {"reason": "Tried by thirty."})
    assert closed.status == 200
    (action,) = control.ask("GET", "/api/management-review").body["actions"]
    assert action["closed_reason"] == "Tried by thirty."
    asked = {each["action"] for each in control.ask("GET", "/api/audit").body["entries"]}
    assert {"action.added", "finding.close"} <= asked


def test_assessment_results_are_oscal(control: Control) -> None:
    from trestle.oscal.assessment_results import Model as AssessmentResults  # noqa: PLC0415 -- heavy

    control.ask("POST", "/api/evidence/collect")
    reply = control.ask("GET", "/api/exports/oscal/nist-ai-rmf")
    assert reply.status == 200, reply.body
    made = AssessmentResults.model_validate(reply.body).assessment_results
    findings, observations = made.results[0].findings or [], made.results[0].observations or []
    assert made.metadata.oscal_version.root.root == "1.1.2" and len(findings) == 17
    related = {each.observation_uuid for finding in findings for each in finding.related_observations or ()}
    assert related == {each.uuid for each in observations}


def test_assessment_results_of_one_workload(control: Control) -> None:
    path = "/api/exports/oscal/house-rules?workload="
    (one,) = control.ask("GET", f"{path}assistant").body["assessment-results"]["results"]
    assert one["title"] == "assistant" and control.ask("GET", f"{path}nobody").code == "workload_unknown"


def test_what_is_declared_leaves_as_oscal_and_comes_back(control: Control) -> None:
    files = {}
    for document in ("catalog", "profile"):
        reply = control.ask("GET", f"/api/exports/oscal/house-rules?document={document}")
        assert reply.status == 200, reply.body
        files[f"{document}.json"] = json.dumps(reply.body)
    owner = {"owner": "Sam@acme.example"}
    made = control.ask("POST", "/api/imports/oscal", {"files": files, **owner})
    assert made.status == 200 and made.body["frameworks"] == {"house-rules": 3}
    assert made.body["yaml"] == (
        "---\n# from profile.json\nkind: framework\nname: house-rules\ntitle: House rules\nowner: sam@acme.example\n"
        "controls:\n- {id: H1, title: It has a budget, needs: [budget.hard]}\n"
        '- {id: H2, title: "A risk is assessed", needs: [risk.assessed]}\n'
        "- {id: H3, title: It was tried by users, needs: [document]}\n"
    )
    alone = control.ask("POST", "/api/imports/oscal", {"files": {"p.json": files["profile.json"]}, **owner})
    assert (alone.status, alone.code) == (400, "import_oscal")
    assert "house-rules-catalog.json, which is not among the files" in str(alone.body)
    assert control.ask("POST", "/api/imports/oscal", {"files": files, "owner": "nobody"}).code == "email_syntax"
    assert control.ask("GET", "/api/exports/oscal/house-rules?document=letter").status == 422


def test_the_register_is_a_cyclonedx_bill_of_materials(control: Control) -> None:
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 -- heavy
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    entries = control.ask("GET", "/api/register").body["entries"]
    assert {each["kind"] for each in entries} == {"workload", "model", "deployment", "provider"}
    model = next(each for each in entries if each["kind"] == "model")
    assert model["missing"] == ["licence_or_terms"] and model["used_by"] == ["assistant"]
    bom = control.ask("GET", "/api/exports/cyclonedx").body
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))
    assert problem is None, problem
    card = control.ask("GET", "/api/register/model/acme/model").body
    assert b"**not declared**" in card and b"acme/model" in card
    assert control.ask("GET", "/api/register/model/none").code == "register_unknown"


def test_calls_to_providers_that_nobody_declared_are_findings(control: Control) -> None:
    log = b"10.0.0.7 CONNECT api.openai.com:443\n10.0.0.8 CONNECT api.openai.com:443\n10.0.0.8 CONNECT 127.0.0.1:9\n"
    found = control.ask("POST", "/api/register/shadow", log).body
    assert found["lines"] == 3
    assert found["hosts"] == [
        {"host": "api.openai.com", "provider": "OpenAI", "declared": False, "calls": 2, "callers": 2}
    ]
    told = control.ask("GET", "/api/findings?kind=governance.shadow_ai").body["findings"]
    assert [(each["mark"], each["detail"]["calls"]) for each in told] == [("api.openai.com", 2)]
    charged = control.ask("POST", "/api/register/shadow?bill=true", b"2026-11-03,PERPLEXITY AI,20.00 USD\n").body
    assert [(each["provider"], each["declared"]) for each in charged["hosts"]] == [("Perplexity", False)]
    told = control.ask("GET", "/api/findings?kind=governance.shadow_ai").body["findings"]
    assert {each["mark"] for each in told} == {"api.openai.com", "bill Perplexity"}


def test_what_leaves_as_a_file_is_in_the_log(control: Control) -> None:
    taken = (
        "/api/cost/focus.csv", "/api/exports/cyclonedx", "/api/exports/oscal/nist-ai-rmf",
        "/api/exports/applicability/nist-ai-rmf", "/api/placement/report.pdf",
    )  # fmt: skip
    for path in taken:
        assert control.ask("GET", path).status == 200, path
    assert control.ask("GET", "/api/cost/statements.csv?team=sales").status == 404
    told = [each["action"] for each in control.ask("GET", "/api/audit?action=export.").body["entries"]]
    assert told.count("export.cost") == 1, "what was refused did not leave"
    assert {"export.cyclonedx", "export.oscal", "export.applicability", "export.placement"} <= {*told}


def test_a_wrong_framework_is_told_with_its_line(control: Control) -> None:
    files = {
        **control.files(),
        "frameworks.yaml": FRAMEWORKS.replace("budget.hard", "budget.soft").replace("tier-1", "tier-7"),
    }
    folder = control.workspace.parent / "wrong"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    ran = run_command(("check", str(folder)), os.environ, 60)
    assert ran.returncode != 0
    assert "frameworks.yaml:4" in ran.stderr and "no profile tier-7" in ran.stderr
    assert "there is no check budget.soft" in ran.stderr and "budget.hard" in ran.stderr
    assert "Traceback" not in ran.stderr
