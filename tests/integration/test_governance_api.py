"""Governance over the control API, the command line and its pages: approvals of what production uses, prompts and their
versions, documents that laws ask for. Against a running control process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from tests.acceptance.stack import wait_until
from tests.integration.nursery import run_command
from tests.integration.test_access import World
from tests.integration.test_api_control import WORKSPACE, run_control
from tests.unit.test_routing_model import make_matrix

from groundplan.api.audit.failed_sign_ins import MAX_ENTRIES_PER_MINUTE
from groundplan.core.audit import record
from groundplan.core.audit.keys import load_public
from groundplan.core.audit.pseudonym import pseudonym
from groundplan.core.audit.verify import verify
from groundplan.core.database import connect
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.versions import registry
from groundplan.governance.controls import evidence_store
from groundplan.release import prompt_history
from groundplan.release import store as release_store
from groundplan.testing.database import Cluster

DUTIES = ("product", "architecture", "engineering", "operations", "finance", "data", "compliance")
OWNERS = "owners: {business: ana, security: sam, " + ", ".join(f"{duty}: sam" for duty in DUTIES) + "}"
MORE = """
---
kind: prompt
name: polite
version: 1
owner: ana
text: |
  Be polite.
  Always.
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [everyone]
"""
RISK = """
risk:
  impact: high
  likelihood: possible
  harms: ["A wrong <b>answer</b> is believed"]
  controls: [A person looks at it]
  residual: medium
  accepted_by: ana
  until: 2027-03-31
  known_limits: [Numbers]
  eu_ai_act: {role: provider, area: employment}
"""


def declared(
    text: str = "  Be polite.\n  Always.\n", version: int = 1, stage: str = "pilot", prompt: str = "polite"
) -> dict[str, str]:
    whole = WORKSPACE
    whole = whole.replace("approvals: {parts: []}", "approvals: {parts: [model, prompt, data, evidence]}")
    whole = whole.replace("deployments: [local]\n", f"deployments: [local]\nprompt: {prompt}\nsources: [handbook]\n", 1)
    if stage == "production":
        whole = whole.replace("stage: pilot", "stage: production")
        whole = whole.replace("owners: {business: ana, security: sam}", f"{OWNERS}{RISK}")
    more = MORE.replace("name: polite", f"name: {prompt}")
    more = more.replace("version: 1", f"version: {version}").replace("  Be polite.\n  Always.\n", text)
    return {"acme.yaml": whole + more}


@pytest.fixture(scope="module")
def world(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("governance")
    with (
        postgres_cluster.database() as database,
        run_control(
            database, folder, "--workspace", str(folder / "workspace"), module="groundplan.console.app"
        ) as control,
    ):
        (control.workspace / "handbook").mkdir()
        yield World(control, database)


@pytest.fixture
def production(world: World) -> World:
    """With the workload declared for production, where what it uses and what people say of it are approved."""
    apply(world, declared(stage="production"))
    return world


def apply(world: World, files: dict[str, str]) -> dict[str, Any]:
    for name, text in files.items():
        (world.control.workspace / name).write_text(text)
    body = {"files": files, "folder": str(world.control.workspace), "reason": "as declared"}
    reply = world.control.ask("POST", "/api/apply", body)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.body
    return found


def cli(world: World, *arguments: str, code: int = 0) -> Any:
    environment = {"GROUNDPLAN_URL": f"http://127.0.0.1:{world.control.port}", "PATH": ""}
    done = run_command([*arguments, "--home", str(world.control.home.root), "--json"], environment, timeout=120)
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout or done.stderr)


def test_prompts_have_versions_a_difference_and_a_way_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = world.control.ask
    apply(world, declared())
    apply(world, declared("  Be polite.\n  And brief.\n", 2))
    listed = next(each for each in ask("GET", "/api/prompts").body["prompts"] if each["name"] == "polite")
    assert listed == {"name": "polite", "version": 2, "owner": "ana", "versions": 2, "used_by": ["assistant"]}
    with connect(world.database.urls["control"]) as conn, monkeypatch.context() as patch:
        found = prompt_history.prompt_versions(conn)
        patch.setattr(release_store, "decode_prompts", lambda _: pytest.fail("each blueprint is read once"))
        assert prompt_history.prompt_versions(conn) == found and [each.number for each in found["polite"]] == [2, 1]
    versions = ask("GET", "/api/prompts/polite").body["versions"]
    assert [(each["version"], each["served"], each["workloads"]) for each in versions] == [
        (2, True, ["assistant"]), (1, False, ["assistant"]),
    ]  # fmt: skip
    lines = ask("GET", "/api/prompts/polite/diff?old=1&new=2").body["lines"]
    assert [line["sign"] + line["text"] for line in lines] == [" Be polite.", "-Always.", "+And brief."]
    assert ask("GET", "/api/prompts/polite/diff?old=1&new=7").body["error"]["code"] == "version_unknown"
    assert ask("GET", "/api/prompts/none").status == 404
    finance = world.person("prompt-reader", "finance")
    back = {"to": 1, "reason": "it was better"}
    assert ask("POST", "/api/prompts/polite/rollback", back, **finance).status == 403
    shown = ask("GET", "/governance/prompts/polite", **finance)
    assert shown.status == 200 and b"<ins>+ And brief.</ins>" in shown.body and b"Go back to it" in shown.body
    done = cli(world, "prompts", "rollback", "polite", "--to", "1", "--workspace", str(world.control.workspace))
    assert done["version"] == 3 and done["blueprint"] is not None
    text = (world.control.workspace / "acme.yaml").read_text()
    assert "version: 3" in text and "  Always.\n" in text and "Be polite" in text
    assert ask("GET", "/api/prompts/polite").body["versions"][0]["text"] == "Be polite.\nAlways.\n"
    assert ask("GET", "/api/status").body["difference"] == [], "the folder says the same"
    assert ask("POST", "/api/prompts/polite/rollback", back).body["error"]["code"] == "prompt_current"
    (world.control.workspace / "acme.yaml").write_text(text.replace("Be polite", "Be rude"))
    refused = cli(
        world, "prompts", "rollback", "polite", "--to", "2", "--workspace", str(world.control.workspace), code=75
    )
    assert refused["error"]["code"] == "workspace_differs"
    (world.control.workspace / "acme.yaml").write_text(text)


def test_what_production_uses_is_asked_for_and_shown_at_its_change(world: World) -> None:
    ask = world.control.ask
    done = apply(world, declared(stage="production"))
    (waiting,) = [each["change"] for each in done["pending"]]
    shown = ask("GET", f"/api/changes/{waiting}").body
    assert [each["code"] for each in shown["missing"]] == ["approval_missing"] * 3
    asked = cli(world, "changes", "ask", "-m", "evaluated", "--workspace", str(world.control.workspace))["asked"]
    assert [(each["kind"], each["subject"]) for each in asked] == [
        ("model", "model/acme/model"), ("prompt", "prompt/polite"), ("data", "source/handbook"),
    ]  # fmt: skip
    assert ask("POST", "/api/approvals/missing", {"workload": "none", "reason": "why not"}).status == 404
    sam = world.control.sign_in("sam@acme.example")
    page = ask("GET", f"/governance/changes/{waiting}", **sam)
    assert page.status == 200 and b"What it uses without approval" in page.body
    decides = b'action="/do/approve"'
    for each in asked:
        named = {who for need in ask("GET", f"/api/changes/{each['id']}").body["waits_for"] for who in need["people"]}
        assert "Sam Berg" in named, "who holds a duty anywhere, where nobody does for the company"
        for name in ("Sam Berg", "Ana Lind"):
            person = world.control.sign_in(f"{name[:3].lower()}@acme.example")
            assert (decides in ask("GET", f"/governance/changes/{each['id']}", **person).body) is (name in named)
            items = ask("GET", "/api/inbox", **person).body["items"]
            (seen,) = [item for item in items if item["subject"] == f"change/{each['id']}"]
            assert seen["mine"] is (name in named), seen
        reply = ask("POST", f"/api/changes/{each['id']}/approve", {}, **sam)
        assert reply.status == 200, reply.body
    assert ask("GET", f"/api/changes/{waiting}").body["missing"] == []
    held = {each["kind"]: each for each in ask("GET", "/api/approvals").body["approvals"]}
    assert held["model"]["changed"] == [] and held["model"]["approvals"][0]["evidence"] is True
    gone = ask("POST", f"/api/changes/{held['model']['id']}/withdraw", {}, **sam).body
    assert gone["effective"]["complete"] and gone["policy"] == gone["effective"]["number"], "no gateway runs here"
    assert [each["code"] for each in ask("GET", f"/api/changes/{waiting}").body["missing"]] == ["approval_withdrawn"]


def test_documents_are_filled_from_facts_and_what_is_missing_is_marked(production: World) -> None:
    world, ask = production, production.control.ask
    kinds = ask("GET", "/api/exports/documents").body
    assert [each["name"] for each in kinds["documents"]] == ["annex-iv", "fria", "dpia"]
    auditor = world.person("auditor", "auditor")
    for kind in ("annex-iv", "fria", "dpia"):
        made = ask("GET", f"/api/exports/documents/{kind}/assistant", **auditor).body
        assert {each["state"] for each in made["sections"]} <= {"filled", "partly", "missing"}
        assert made["missing"] == [each["id"] for each in made["sections"] if not each["said"]] != []
    annex = ask("GET", "/api/exports/documents/annex-iv/assistant").body
    sections = {each["id"]: each for each in annex["sections"]}
    assert "acme is its provider." in [said["text"] for said in sections["1(a)"]["said"]]
    assert "8" in annex["missing"], "nobody has declared conformity"
    given = cli(world, "evidence", "add", "annex-iv/8", "--workload", "assistant", "-m", "Signed on 2026-11-01")
    assert given["what"] == "annex-iv/8" and given["change"] is not None
    annex = ask("GET", "/api/exports/documents/annex-iv/assistant").body
    assert "8" in annex["missing"], "given, and not approved yet"
    (listed,) = ask("GET", "/api/evidence?what=annex-iv/8").body["evidence"]
    assert (listed["approval"], listed["change"]) == ("pending", given["change"])
    assert b"approval pending" in ask("GET", "/governance/evidence?what=annex-iv/8", **auditor).body
    approved = world.person("evidence-officer", "compliance")
    assert ask("POST", f"/api/changes/{given['change']}/approve", {}, **approved).status == 200
    annex = ask("GET", "/api/exports/documents/annex-iv/assistant").body
    assert "8" not in annex["missing"]
    text = ask("GET", "/api/exports/documents/annex-iv/assistant/text").body.decode()
    assert "Signed on 2026-11-01" in text and "<b>" not in text and "&lt;b>answer" in text, (
        "what is declared is escaped"
    )
    with connect(world.database.urls["control"]) as conn:
        asked = partial(evidence_store.newest_evidence, conn, datetime.now(UTC), demanded=True)
        (found,) = asked(what="annex-iv/8", subjects=["workload/assistant"])
        assert found in asked(what="annex-iv/8") and found in asked(subjects=["workload/assistant"])
        assert asked(what="annex-iv/9") == asked(subjects=["workload/other"]) == [], "of others nothing is read"
    assert cli(world, "export", "document", "fria", "assistant")["document"] == "fria"
    assert ask("GET", "/api/exports/documents/novel/assistant").status == 422
    assert ask("GET", "/api/exports/documents/dpia/none").status == 404
    page = ask("GET", "/governance/documents?name=annex-iv&workload=assistant", **auditor)
    assert page.status == 200 and b"Not provided yet" in page.body and b"<b>answer</b>" not in page.body
    entries = ask("GET", "/api/audit?action=export.document").body["entries"]
    assert entries and entries[0]["subject"] == "workload/assistant"


def test_a_decision_from_the_command_line_is_made_by_who_confirms_it_with_a_passkey(production: World) -> None:
    world, ask = production, production.control.ask
    shown = {"what": "annex-iv/3", "workload": "assistant", "says": "Read on 2026-11-02"}
    change = ask("POST", "/api/evidence", shown).body["change"]
    for kind in ("evidence", "policy", "exception"):
        by_hand = {"kind": kind, "subject": "workload/assistant", "what": {"document": "x"}, "reason": "for the audit"}
        assert ask("POST", "/api/approvals", by_hand).body["error"]["code"] == "approval_kind", "it would bite nowhere"
    wanted = {"change": change, "decision": "approve", "comment": "seen"}
    asked = ask("POST", "/api/terminals", wanted).body
    path, secret = f"/api/terminals/{asked['id']}", {"secret": asked["secret"]}
    assert ask("POST", f"{path}/decide", secret).body["error"]["code"] == "terminal_waits"
    assert ask("POST", f"{path}/confirm").status == 403, "the operator's token confirms nothing"
    linked = world.person("linked", "compliance", proof="recovery")
    assert ask("POST", f"{path}/confirm", {}, **linked).status == 403, "nor does a link that the operator could make"
    officer = world.person("officer", "compliance")
    page = ask("GET", f"/you/terminal/{asked['id']}", **officer)
    assert page.status == 200 and asked["code"].encode() in page.body and b"this is my decision" in page.body
    assert b"Sign in with your passkey" in ask("GET", f"/you/terminal/{asked['id']}", **linked).body
    assert ask("POST", f"{path}/confirm", {}, **officer).status == 200
    assert ask("POST", f"{path}/confirm", {}, **officer).status == 409
    assert ask("POST", f"{path}/decide", {"secret": "x" * 40}).status == 404
    done = ask("POST", f"{path}/decide", secret)
    assert done.status == 200 and done.body["decision"] == "approve", done.body
    assert ask("POST", f"{path}/decide", secret).status == 404, "once"
    (approval,) = ask("GET", f"/api/changes/{change}").body["approvals"]
    assert (approval["email"], approval["proof"], approval["comment"]) == ("officer@acme.example", "passkey", "seen")
    assert ask("POST", "/api/terminals", wanted).body["error"]["code"] == "change_settled"
    entries = ask("GET", "/api/audit?limit=500").body["entries"]
    newest = next(place for place, each in enumerate(entries) if each["action"] == "change.approved")
    assert entries[newest]["subject"] == f"change/{change}"
    assert "terminal.confirmed" in {each["action"] for each in entries}


def test_the_command_waits_and_then_says_it(production: World) -> None:
    world, ask = production, production.control.ask
    shown = {"what": "annex-iv/3", "workload": "assistant"}
    older = ask("POST", "/api/evidence", {**shown, "says": "Read before"}).body["change"]
    approver = world.person("approver", "compliance")
    assert ask("POST", f"/api/changes/{older}/approve", {}, **approver).status == 200
    change = ask("POST", "/api/evidence", {**shown, "says": "Read again"}).body["change"]
    home = str(world.control.home.root)
    process = subprocess.Popen(
        [sys.executable, "-m", "groundplan.cli.main", "refuse", change, "-m", "no", "--home", home],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"GROUNDPLAN_URL": f"http://127.0.0.1:{world.control.port}", "PATH": ""},
    )  # fmt: skip
    assert process.stderr is not None
    link = process.stderr.readline().split()[1]
    confirmer = world.person("confirmer", "compliance")
    assert ask("POST", f"/api/terminals/{link.rpartition('/')[2]}/confirm", {}, **confirmer).status == 200
    out, _ = process.communicate(timeout=120)
    assert (process.returncode, out.strip()) == (0, "refused")
    assert ask("GET", f"/api/changes/{change}").body["state"] == "refused"
    (refused, approved, *_) = ask("GET", "/api/evidence?what=annex-iv/3").body["evidence"]
    assert (refused["approval"], approved["approval"]) == ("refused", "applied")
    told = str(ask("GET", "/api/exports/documents/annex-iv/assistant").body)
    assert "Read before" in told and "Read again" not in told, "the older one, which is approved, decides"
    for each in (refused, approved):
        assert ask("POST", f"/api/evidence/{each['id']}/withdraw", {"reason": "another version"}).status == 200
    states = [ask("GET", f"/api/changes/{each['change']}").body["state"] for each in (refused, approved)]
    assert states == ["refused", "superseded"], "nothing is left to announce or to renew"


def test_a_prompt_that_says_something_else_under_its_number_is_a_finding(world: World) -> None:
    ask = world.control.ask
    kind = "/api/findings?kind=governance.prompt_changed"
    apply(world, declared(prompt="gentle"))
    apply(world, declared("  Be polite.\n  Never.\n", prompt="gentle"))
    (told,) = wait_until(lambda: ask("GET", kind).body["findings"], 60, "version 1 said something else before")
    assert (told["subject"], told["severity"]) == ("prompt/gentle", "medium")
    old, new = told["hint"].rstrip("`.").split()[-2:]
    assert "Never" in str(ask("GET", f"/api/prompts/gentle/diff?old={old}&new={new}").body["lines"])
    apply(world, declared("  Be polite.\n  Never.\n", 2, prompt="gentle"))
    wait_until(lambda: not ask("GET", kind).body["findings"], 60, "version 2 has said nothing else")


def test_who_approves_a_router_sees_how_it_was_evaluated(world: World) -> None:
    ask = world.control.ask
    trained = {
        "from": "judges of assistant", "prompts": "900", "groups": "800", "trained": "2026-11-20", "against": "large",
        "saved at 0.98": "0.42", "kept at 0.98": "0.9960", "low at 0.98": "0.9912", "high at 0.98": "1.0008",
    }  # fmt: skip
    router = replace(
        train(make_matrix(60), None, (0.95,), name="support"), points={"0.98": (0.1, 0.0)}, trained=trained
    )
    folder = world.control.home.root / "routers"
    version = registry.save_router(folder, router)
    digest = registry.router_digest(folder, version)
    rule = f"routing: {{by: learned, router: {version}, digest: {digest}, keep: 98%}}\n"
    rule += "objectives: {quality: {tone: 90%}}\n"
    whole = declared(stage="production")["acme.yaml"].replace(
        "deployments: [local]\n", f"deployments: [local]\n{rule}", 1
    )
    (waiting,) = [each["change"] for each in apply(world, {"acme.yaml": whole})["pending"]]
    routing = ask("GET", f"/api/changes/{waiting}").body["routing"]
    assert (routing["router"]["state"], routing["router"]["digest"], routing["before"]) == ("known", digest, None)
    found = routing["router"]["evaluation"]
    assert (found["kept"], found["low"], found["prompts"], found["against"]) == (0.996, 0.9912, 900, "large")
    assert [(each["dimension"], each["floor"], each["kept"]) for each in routing["floors"]] == [
        ("tone", 0.9, "unknown")
    ]
    told = cli(world, "changes", "show", waiting)["routing"]["told"]
    assert "keeps 99.6% (95 %: 99.1% to 100.1%) of large on 900 prompts" in told[0]
    sam = world.control.sign_in("sam@acme.example")
    page = ask("GET", f"/governance/changes/{waiting}", **sam).body.decode()
    assert "99.6 % (99.1 to 100.1 %)" in page and digest[:12] in page and "tone: floor 90%" in page
    wanted = {"change": waiting, "decision": "approve"}
    asked = ask("POST", "/api/terminals", wanted).body
    page = ask("GET", f"/you/terminal/{asked['id']}", **sam).body.decode()
    assert "99.6 % (99.1 to 100.1 %)" in page, "whoever confirms at a terminal sees it, too"


def test_the_checkpoint_key_rotates_while_it_runs_and_the_log_verifies_by_either_key(world: World) -> None:
    ask, home = world.control.ask, world.control.home
    old = load_public(home, "checkpoint").public_bytes_raw()
    assert ask("POST", "/api/audit/rotate-key", {}, **world.person("rotator", "security")).status == 403
    done = ask("POST", "/api/audit/rotate-key", {})
    assert done.status == 200 and done.body["previous"] != done.body["next"], done.body
    new = load_public(home, "checkpoint").public_bytes_raw()
    assert new != old and not (home.keys / "checkpoint.next").exists()
    (entry,) = ask("GET", "/api/audit?action=audit.key_rotated").body["entries"]
    proof = wait_until(lambda: _proven(world, entry["id"]), 60, "what comes after it is signed by the new key")
    assert proof["holds"]
    for key in (old, new):
        assert verify(home.audit, key).ok, "whoever trusts either key"


def _proven(world: World, entry: str) -> Any:
    reply = world.control.ask("GET", f"/api/audit/{entry}/proof")
    return reply.body["proof"] if reply.status == 200 else None


def test_failed_sign_ins_are_recorded_bounded_and_found_by_a_pseudonym(world: World) -> None:
    ask, home = world.control.ask, world.control.home
    assert ask("GET", "/api/status", Authorization="").status == 401, "nobody tried anything"
    assert ask("GET", "/api/audit?action=login.failed").body["entries"] == []
    for _ in range(MAX_ENTRIES_PER_MINUTE + 15):
        assert ask("GET", "/api/status", Authorization="Bearer gpo_wrong").status == 401
    assert ask("GET", "/login/no-such-link", Authorization="").status == 401
    entries = ask("GET", "/api/audit?action=login.failed").body["entries"]
    assert len(entries) == MAX_ENTRIES_PER_MINUTE and {each["detail"]["code"] for each in entries} == {"token_invalid"}
    assert len({each["detail"]["client"] for each in entries}) == 1 and "127.0.0.1" not in str(entries)
    kinds = [each["kind"] for each in ask("GET", "/api/findings").body["findings"]]
    assert "identity.failed_sign_ins" in kinds, "many at once are told"
    stranger = "Bob@Elsewhere.example"
    with connect(world.database.urls["control"]) as conn:
        record(conn, action="login.failed", actor="system", subject=f"sign-in/{pseudonym(home, stranger)}", detail={})
    found = ask("GET", "/api/audit?who=bob@elsewhere.example").body["entries"]
    assert len(found) == 1 and "bob" not in str(found).lower()
    assert ask("GET", "/api/audit?who=other@elsewhere.example").body["entries"] == []
    assert pseudonym(home, stranger) != pseudonym(home, "other@elsewhere.example")
