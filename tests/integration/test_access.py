"""The authorisation matrix: every route of OpenAPI asked as every duty, none unlisted; rights for a time; tokens."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.integration.test_api_control import Control, run_control

from groundplan.api.access.authorization import (
    COMPANY_WIDE,
    access_rules,
    access_verdict,
    actions_by_route,
    authorize_company,
)
from groundplan.api.caller import Caller
from groundplan.core.audit import OPERATOR
from groundplan.core.database import connect
from groundplan.core.errors import Denied
from groundplan.identity import rights, rights_store, sessions, store
from groundplan.identity import service as identity
from groundplan.identity.model import DUTIES, Proof, Session
from groundplan.testing.database import Cluster, Database

WHO = (*DUTIES, "auditor", "on-call", "emergency")
WORK = set(DUTIES)
MAY: dict[str, set[str]] = {
    "open": {*WHO, "nobody", "operator"},
    "self": {*WHO, "nobody", "operator"},
    "read": {*WHO, "operator"},
    "plan": {*WHO, "operator"},
    "release": {"operations", "architecture", "operator"},
    "rollback": {"operations", "architecture", "security", "on-call", "emergency", "operator"},
    "approve": {*WHO, "nobody"} - {"auditor"},
    "refuse": {*WHO, "nobody", "operator"} - {"auditor"},
    "review": {*WHO, "nobody", "operator"} - {"auditor"},
    "own": {*WHO, "nobody", "operator"},
    "settle": {*WHO, "nobody", "operator"} - {"auditor"},
    "stop": {"security", "operations", "business", "on-call", "emergency", "operator"},
    "lift": {"security", "operations", "business", "operator"},
    "people": {"security", "operations", "operator"},
    "appoint": {"security", "compliance"},
    "handover": {"security", "compliance", "operator"},
    "erase": {"compliance"},
    "keys": {"engineering", "operations", "business", "product", "operator"},
    "revoke": {"engineering", "operations", "business", "product", "security", "operator"},
    "clear": {"engineering", "operations", "business", "product", "security", "data", "operator"},
    "work": {*WORK, "operator"},
    "operate": {"operator"},
    "scim": set(),
}
"""What docs/identity.md says, written a second time: who may do what. `approve` and `refuse` of those without the duty
end at the change itself, `own` and `settle` at whose it is."""
PART_OF = {"own": "read", "settle": "work"}
"""Scopes that have more than the action of their name."""


@dataclass(frozen=True)
class World:
    control: Control
    database: Database

    def person(self, name: str, *duties: str, proof: Proof = "passkey") -> dict[str, str]:
        """The session of somebody new who holds these duties of the company, or is appointed to them."""
        now = datetime.now(UTC)
        with connect(self.database.urls["control"]) as conn:
            identity.add_person(conn, OPERATOR, f"{name}@acme.example", name.title())
            who = identity.find_person(conn, f"{name}@acme.example").id
            for duty in duties:
                if duty in DUTIES:
                    conn.execute("INSERT INTO duty (subject, duty, person_id) VALUES ('company', %s, %s)", (duty, who))
                else:
                    ends = now + (rights.EMERGENCY if duty == "emergency" else timedelta(days=1))
                    rights.appoint(conn, OPERATOR, who, duty, "test", now, ends)  # type: ignore[arg-type]
            return self._session(conn, sessions.begin(conn, who, proof, now))

    def _session(self, conn: Any, secret: str) -> dict[str, str]:
        found = sessions.find_session(conn, secret)
        assert found is not None
        cookie = f"{sessions.COOKIE}_{self.control.port}={secret}"
        return {"Authorization": "", "Cookie": cookie, "X_CSRF_Token": found.csrf}


@pytest.fixture(scope="module")
def world(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Where somebody can prove to be there, so that nothing is left to the operator's token alone."""
    folder = tmp_path_factory.mktemp("access")
    at = ("--workspace", str(folder / "workspace"))
    with (
        postgres_cluster.database() as database,
        run_control(database, folder, *at, module="groundplan.console.app") as control,
    ):
        control.sign_in("ana@acme.example")
        yield World(control, database)


@pytest.mark.parametrize("action", sorted(MAY))
def test_the_policies_say_what_the_documents_say(action: str) -> None:
    for who in (*WHO, "nobody"):
        duties = () if who == "nobody" else (who,)
        allowed = access_verdict("Person", action, duties, proven=True).allowed
        assert allowed == (who in MAY[action]), f"{action} as {who}"
    assert access_verdict("Operator", action, ["operations"], proven=False).allowed == ("operator" in MAY[action])
    assert access_verdict("Anybody", action, [], proven=False).allowed == (action == "open")


def test_a_right_that_requires_a_passkey_is_refused_to_a_link_session() -> None:
    for action in ("appoint", "erase", "handover"):
        assert not access_verdict("Person", action, ["security", "compliance"], proven=False).allowed


@pytest.mark.parametrize("action", sorted(MAY))
def test_a_token_is_limited_to_its_scopes_and_never_approves(action: str) -> None:
    never = {"approve", "refuse", "appoint", "handover", "erase", "lift", "self", "operate", "review"}
    assert access_verdict("Service", action, [], proven=False, scopes=[action]).allowed == (action not in never)
    if action in PART_OF:
        assert access_verdict("Service", action, [], proven=False, scopes=[PART_OF[action]]).allowed
    other = "release" if action != "release" else "plan"
    assert access_verdict("Service", action, [], proven=False, scopes=[other]).allowed == (action == "open")


def test_every_policy_has_a_unique_name_and_an_owner() -> None:
    assert len({rule.id for rule in access_rules().rules}) == len(access_rules().rules)
    assert all(rule.id.startswith("access.") and rule.owner for rule in access_rules().rules)
    assert set(json.loads((resources.files("groundplan.api.access") / "routes.json").read_text())) == set(MAY)


def _routes(control: Control) -> list[tuple[str, str]]:
    document = control.ask("GET", "/api/openapi.json").body
    return sorted((method.upper(), path) for path, item in document["paths"].items() for method in item)


def test_the_listed_routes_are_exactly_those_that_exist(world: World) -> None:
    there = {f"{method} {path}" for method, path in _routes(world.control)}
    assert there - set(actions_by_route()) == set(), "write it into api/access/routes.json"
    assert set(actions_by_route()) - there == set()


def test_every_route_for_every_duty_by_the_policies(world: World) -> None:
    """Each route of OpenAPI with each duty alone: what the policies say, against the table above."""
    wrong = []
    for method, path in _routes(world.control):
        action = actions_by_route()[f"{method} {path}"]
        for who in (*WHO, "nobody"):
            held = () if who == "nobody" else (who,)
            if access_verdict("Person", action, held, proven=True).allowed != (who in MAY[action]):
                wrong.append((method, path, who))
    assert wrong == []


def test_every_route_over_http(world: World) -> None:
    """With a body that no route accepts: who may not is refused before it is read. Four people stand for all duties."""
    people = {duty: world.person(f"all{duty}", duty) for duty in ("finance", "security", "auditor")}
    people["nobody"] = world.person("allnobody")
    wrong = []
    for method, path in _routes(world.control):
        action = actions_by_route()[f"{method} {path}"]
        for who, session in people.items():
            if _is_left_out(method, path, who):
                continue
            answer = world.control.ask(method, _filled(path), {"unknown": 1} if method == "POST" else None, **session)
            at_the_door = answer.status == 403 and (
                answer.code in {"operator_only", "auditor_only_reads", "operator_never_approves"}
                or "lets you do this" in str(answer.body)
            )
            if at_the_door == (who in MAY[action]) and not (who in MAY[action] and path in ASK_AGAIN):
                wrong.append((method, path, who, answer.status, answer.body if answer.status >= 400 else ""))
    assert wrong == []


def _of_one_workload(world: World, name: str, *duties: str) -> dict[str, str]:
    """The session of somebody who holds these duties for one workload."""
    session = world.person(name)
    with connect(world.database.urls["control"]) as conn:
        who = identity.find_person(conn, f"{name}@acme.example").id
        for duty in duties:
            conn.execute(
                "INSERT INTO duty (subject, duty, person_id) VALUES ('workload/assistant', %s, %s)", (duty, who)
            )
    return session


def test_a_duty_for_one_workload_gives_no_rights_over_the_company(world: World) -> None:
    """Whoever declares a workload names its owners: they could erase anybody, and make tokens that release."""
    for duty in ("security", "compliance", "operations"):
        world.person(f"whole-{duty}", duty)
    session = _of_one_workload(world, "part", "security", "compliance", "operations")
    assert world.control.ask("GET", "/api/people", **session).status == 200
    asked = 0
    for route, action in actions_by_route().items():
        if action in COMPANY_WIDE:
            method, path = route.split(" ")
            answer = world.control.ask(method, _filled(path), {} if method == "POST" else None, **session)
            assert (answer.status, answer.code) == (403, "duty_missing"), route
            asked += 1
    assert asked > 14
    theirs = world.control.ask("POST", "/api/people/whole-security@acme.example/sign-out", {}, **session)
    assert theirs.code == "not_yours"


def test_a_duty_without_a_company_wide_holder_falls_to_its_workload_holders(database: Database) -> None:
    """Else a small company, whose owners stand at its workloads, could appoint nobody."""
    with connect(database.urls["control"]) as conn:
        people = []
        for name in ("part", "whole"):
            identity.add_person(conn, OPERATOR, f"{name}@acme.example", name)
            people.append(identity.find_person(conn, f"{name}@acme.example").id)
        part, whole = people
        conn.execute("INSERT INTO duty VALUES ('workload/assistant', 'compliance', %s)", (part,))
        signed = Session(part, None, "", datetime.now(UTC), "passkey")
        caller = Caller(
            "person",
            part,
            None,
            "Part",
            operator=False,
            duties=(("workload/assistant", "compliance"),),
            browser_session=signed,
        )
        authorize_company(conn, caller, "appoint")
        conn.execute("INSERT INTO duty VALUES ('company', 'compliance', %s)", (whole,))
        with pytest.raises(Denied):
            authorize_company(conn, caller, "appoint")


def test_a_token_has_no_more_rights_than_its_creator(world: World) -> None:
    security, operations = world.person("tsec", "security"), world.person("tops", "operations")
    for session, scopes, status in (
        (security, ["read", "stop", "rollback", "scim"], 201), (security, ["read", "release"], 403),
        (security, ["keys"], 403), (operations, ["release", "keys", "work"], 201), (None, ["release", "scim"], 201),
    ):  # fmt: skip
        answer = world.control.ask("POST", "/api/tokens", {"name": "t", "scopes": scopes}, **(session or {}))
        assert answer.status == status, (scopes, answer.body)


ASK_AGAIN = {"/api/passkeys/{passkey}/confirm", "/api/calls/{call_id}/content", "/api/emergency"}
"""Routes whose subject decides once more."""
ENDS_OR_STAYS = {"/api/logout", "/api/calls/live", "/api/people/{person}/sign-out"}
"""Would end the session that asks, or never end; `test_the_policies_say_what_the_documents_say` asks about them."""


def _is_left_out(method: str, path: str, who: str) -> bool:
    """Who reads does not depend on which duty it is, so two ask for what is only read."""
    return path in ENDS_OR_STAYS or (method == "GET" and who not in ("nobody", "auditor"))


def _filled(path: str) -> str:
    for name in ("name", "act", "group", "person", "subject"):
        path = path.replace(f"{{{name}}}", "none")
    path = path.replace("{number}", "1").replace("{passkey}", "00")
    return re.sub(r"\{\w+\}", "01a212d3-0000-7000-8000-000000000000", path)


def test_lifting_a_kill_takes_two_people_who_are_present(world: World) -> None:
    control = world.control
    stop, lift = {"scope": "workload/assistant", "reason": "test"}, {"scope": "workload/assistant", "reason": "done"}
    oncall = world.person("onduty", "on-call")
    assert control.ask("POST", "/api/kill", stop, **oncall).status == 201, "one on-call person stops alone"
    assert control.ask("POST", "/api/kill/lift", lift, **oncall).code == "duty_missing"
    first = world.person("first", "security")
    by_link = world.person("linked", "security", proof="recovery")
    second = world.person("second", "business")
    for session in ({}, {}, by_link):
        asked = control.ask("POST", "/api/kill/lift", lift, **session).body
        assert (asked["lifted"], asked["waits_for"]) == (False, "two people with the duty who prove to be there")
    assert control.ask("GET", "/api/kill").body["kills"][0]["lift_waits_for"] == asked["waits_for"]
    assert control.ask("POST", "/api/kill/lift", lift, **first).body["lifted"] is False, "by the token and oneself: one"
    for session in ({}, by_link, first):
        assert control.ask("POST", "/api/kill/lift", lift, **session).body["lifted"] is False
    stopped = control.ask("GET", "/api/kill").body["kills"][0]
    assert (stopped["lift_asked_by"], stopped["lift_waits_for"]) == ("First", "somebody else with the duty")
    assert control.ask("POST", "/api/kill/lift", lift, **second).body["lifted"] is True
    assert control.ask("POST", "/api/kill/lift", lift, **first).code == "not_killed"


def test_removing_every_passkey_does_not_reopen_the_first_registration(world: World) -> None:
    """The operator's token can remove all of them: what takes two people still does."""
    with connect(world.database.urls["control"]) as conn:
        conn.execute("UPDATE passkey SET removed_at = now()")
        assert rights_store.has_proven_person(conn)
        conn.rollback()


def test_emergency_access_is_announced_short_and_reviewed_by_somebody_else(world: World) -> None:
    control = world.control
    finance, compliance = world.person("fin", "finance"), world.person("comp", "compliance")
    linked = world.person("fin2", "finance", proof="recovery")
    why = {"reason": "the provider leaks, nobody answers"}
    assert control.ask("POST", "/api/rollback", {}, **finance).code == "duty_missing"
    assert control.ask("POST", "/api/emergency", why, **linked).code == "proof_missing"
    assert control.ask("POST", "/api/emergency", why).code == "proof_missing"
    reader = world.person("reader", "auditor")
    assert control.ask("POST", "/api/emergency", why, **reader).code == "proof_missing", "an auditor reads"
    made = control.ask("POST", "/api/emergency", why, **finance)
    assert made.status == 201 and made.body["active"]
    assert control.ask("POST", "/api/rollback", {}, **finance).code != "duty_missing"
    told = [
        row
        for row in control.ask("GET", "/api/inbox", **compliance).body["items"]
        if "provider leaks" in row["message"]
    ]
    assert told[0]["severity"] == "critical" and "the provider leaks" in told[0]["message"]
    finding = control.ask("GET", "/api/findings?kind=identity.emergency", **compliance).body["findings"][0]
    at = {days: {"until": (datetime.now(UTC) + timedelta(days=days)).isoformat()} for days in (0.5, 30)}
    assert control.ask("POST", f"/api/findings/{finding['id']}/quiet", at[0.5], **finance).code == "own_finding"
    assert control.ask("POST", f"/api/findings/{finding['id']}/close", {"reason": "x"}, **finance).code == "own_finding"
    assert control.ask("POST", f"/api/findings/{finding['id']}/quiet", at[30], **compliance).code == "quiet_long"
    review = f"/api/appointments/{made.body['id']}/review"
    said = {"reason": "it was right"}
    assert control.ask("POST", review, said, **compliance).code == "not_reviewable", "it is not over"
    assert control.ask("POST", f"/api/appointments/{made.body['id']}/end", {}, **compliance).status == 200
    assert control.ask("POST", "/api/rollback", {}, **finance).code == "duty_missing", "ended at once"
    told = [
        row
        for row in control.ask("GET", "/api/inbox", **compliance).body["items"]
        if "provider leaks" in row["message"]
    ]
    assert told[0]["severity"] == "high"
    assert control.ask("POST", review, said, **compliance).body["reviewed_by"] == "Comp"
    assert not [row for row in control.ask("GET", "/api/inbox").body["items"] if "provider leaks" in row["message"]]


def test_an_auditor_reads_everything_until_the_agreed_end(world: World) -> None:
    control = world.control
    security, auditor = world.person("sec", "security"), world.person("aud")
    assert control.ask("GET", "/api/audit", **auditor).code == "duty_missing"
    wanted = {"person": "aud@acme.example", "role": "auditor", "days": 7, "reason": "yearly audit"}
    assert control.ask("POST", "/api/appointments", wanted).code == "operator_never_approves"
    assert control.ask("POST", "/api/appointments", {**wanted, "days": 400}, **security).status == 422
    assert control.ask("POST", "/api/appointments", {**wanted, "person": "sec"}, **security).code == "self_appointment"
    for begins, code in (("2027-01-31T09:00:00", "request_invalid"), ("9999-12-31T00:00:00Z", "appointment_time")):
        refused = control.ask("POST", "/api/appointments", {**wanted, "begins": begins}, **security)
        assert refused.status in (400, 422) and refused.code == code, (
            "a time has its zone, and is not beyond all calendars"
        )
    made = control.ask("POST", "/api/appointments", wanted, **security)
    assert made.status == 201 and control.ask("GET", "/api/audit", **auditor).status == 200
    assert control.ask("POST", "/api/findings/x/close", {}, **auditor).code in {"auditor_only_reads", "duty_missing"}
    assert control.ask("POST", f"/api/appointments/{made.body['id']}/end", {}, **security).status == 200
    assert control.ask("GET", "/api/audit", **auditor).code == "duty_missing"


def test_a_token_has_scopes_and_an_expiry_and_cannot_approve(world: World) -> None:
    control = world.control
    asked = {"name": "ci", "scopes": ["plan", "read"], "days": 30}
    assert control.ask("POST", "/api/tokens", {**asked, "scopes": ["approve"]}).code == "token_scope"
    made = control.ask("POST", "/api/tokens", asked)
    token = {"Authorization": f"Bearer {made.body['token']}"}
    assert control.ask("GET", "/api/changes", **token).status == 200
    assert control.ask("POST", "/api/plan", {"files": control.files()}, **token).status == 200
    assert control.ask("POST", "/api/apply", {"files": control.files()}, **token).status == 403
    change = "/api/changes/01a212d3-0000-7000-8000-000000000000/approve"
    assert control.ask("POST", change, {}, **token).code == "service_never_decides"
    assert control.ask("POST", "/api/login-links", {}, **token).status == 403
    listed_ = control.ask("GET", "/api/tokens").body["tokens"]
    assert listed_[0]["name"] == "ci" and made.body["token"] not in str(listed_)
    assert control.ask("DELETE", f"/api/tokens/{made.body['id']}").status == 200
    assert control.ask("GET", "/api/changes", **token).code == "token_invalid"
    assert control.ask("GET", "/api/changes", Authorization="Bearer gpt_none").code == "token_invalid"
    other = control.ask("POST", "/api/tokens", {**asked, "name": "other"}).body
    with connect(world.database.urls["owner"]) as conn:
        conn.execute("UPDATE service_token SET expires_at = now() WHERE id = %s", (other["id"],))
    assert control.ask("GET", "/api/changes", Authorization=f"Bearer {other['token']}").code == "token_invalid"
    states = {each["id"]: each["state"] for each in control.ask("GET", "/api/tokens").body["tokens"]}
    assert (listed_[0]["state"], states[made.body["id"]], states[other["id"]]) == ("active", "revoked", "expired")


def test_access_reviews_cover_everybody_and_list_a_leavers_rights(world: World) -> None:
    control = world.control
    security = world.person("sec2", "security")
    world.person("goer", "data", "finance")
    held = control.ask("GET", "/api/people/goer@acme.example/holdings", **security).body
    assert held["duties"] == ["data of company", "finance of company"] and held["sessions"] == 1
    looked = control.ask("GET", "/api/access-review", **security).body
    assert looked["last_at"] is None and looked["due"] is not None and len(looked["rights"]) > 2
    done = {"removed": ["data of goer"], "comment": "left the team"}
    assert control.ask("POST", "/api/access-review", done).code == "operator_never_approves"
    assert control.ask("POST", "/api/access-review", done, **security).status == 201
    assert control.ask("GET", "/api/access-review", **security).body["last_by"].startswith("person:")


def test_a_leavers_duties_are_transferred_to_a_colleague_for_good(world: World) -> None:
    control = world.control
    world.person("gone", "finance", "data")
    world.person("heir", "data")
    taken = {"to": "heir@acme.example"}
    officer, path = world.person("officer", "compliance"), "/api/people/gone@acme.example/handover"
    assert control.ask("POST", path, taken, **officer).code == "still_here"
    assert control.ask("DELETE", "/api/people/gone@acme.example").status == 200
    operations, linked = world.person("ops", "operations"), world.person("linked2", "security", proof="recovery")
    for session, code in ((operations, "duty_missing"), (linked, "proof_missing")):
        assert control.ask("POST", path, {"to": "ops@acme.example"}, **session).code == code
    assert control.ask("POST", path, taken).code == "handover_by_person", "the operator's token gives nobody a duty"
    assert control.ask("POST", path, {"to": "officer@acme.example"}, **officer).code == "self_handover"
    done = control.ask("POST", path, taken, **officer)
    assert done.body["duties"] == ["data of company", "finance of company"]
    held = control.ask("GET", "/api/people/heir@acme.example/holdings").body["duties"]
    assert held == ["data of company", "finance of company"]
    with connect(world.database.urls["control"]) as conn:
        assert store.successor(conn, "gone@acme.example") == "heir@acme.example"
        assert store.successor(conn, "heir@acme.example") is None


def test_a_leavers_duties_are_transferred_in_the_console(world: World) -> None:
    control = world.control
    world.person("gone2", "finance")
    world.person("heir2", "data")
    officer = world.person("officer2", "compliance")
    assert control.ask("DELETE", "/api/people/gone2@acme.example").status == 200
    said = {"csrf": officer["X_CSRF_Token"], "person": "gone2@acme.example", "to": "heir2@acme.example"}
    headers = {"Cookie": officer["Cookie"], "Content-Type": "application/x-www-form-urlencoded"}
    connection = http.client.HTTPConnection("localhost", control.port, timeout=60)
    connection.request("POST", "/do/handover", urlencode(said), headers)
    reply = connection.getresponse()
    assert reply.status == 303 and "finance" in str(reply.headers["location"]), (
        reply.status,
        reply.headers["location"],
    )
    connection.close()


def test_a_leavers_credentials_end_and_do_not_come_back_on_return(world: World) -> None:
    """Session, tokens that they made, rights for a time; the directory brings a person back, and no duty."""
    control = world.control
    leaver = world.person("leaver", "security", "operations", "on-call")
    made = control.ask("POST", "/api/tokens", {"name": "ci", "scopes": ["read", "stop", "keys"]}, **leaver).body
    program = {"Authorization": f"Bearer {made['token']}"}
    known = [control.ask("POST", "/api/keys", {"workload": "assistant"}, **who).body["id"] for who in (leaver, program)]
    assert control.ask("POST", "/api/keys", {"workload": "assistant", "user": "leaver"}, **leaver).status == 201
    kept = control.ask("POST", "/api/tokens", {"name": "directory", "scopes": ["scim"]}).body["token"]
    assert control.ask("GET", "/api/keys", **program).status == 200
    stop = {"scope": "deployment/local", "reason": "test"}
    assert control.ask("POST", "/api/kill", stop).status == 201
    assert control.ask("POST", "/api/kill/lift", stop, **leaver).body["lifted"] is False
    left = control.ask("DELETE", "/api/people/leaver@acme.example")
    assert left.status == 200 and [each["id"] for each in left.body["keys_made"]] == known, "these go on"
    for session in (program, leaver):
        assert control.ask("GET", "/api/keys", **session).status == 401
    last = world.person("last", "security")
    assert control.ask("POST", "/api/kill/lift", stop, **last).body["lifted"] is False, "a leaver is none of the two"
    told = control.ask("GET", "/api/audit?action=person.left").body["entries"]
    assert told[0]["detail"]["revoked_tokens"] == [made["id"]]

    user = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "leaver@acme.example"}
    back = control.ask("POST", "/api/scim/v2/Users", user, Authorization=f"Bearer {kept}")
    assert back.status == 201 and back.body["active"] is True, back.body
    held = control.ask("GET", "/api/people/leaver@acme.example/holdings").body
    assert (held["active"], held["duties"], held["roles"]) == (True, [], [])
    assert control.ask("GET", "/api/keys", **program).status == 401


def test_a_key_with_a_persons_permissions_is_created_by_that_person_or_the_operator(world: World) -> None:
    control = world.control
    coder = world.person("coder", "engineering", "operations")
    theirs, own = ({"workload": "assistant", "user": f"{name}@acme.example"} for name in ("ana", "coder"))
    assert control.ask("POST", "/api/keys", theirs, **coder).code == "key_of_another"
    made = control.ask("POST", "/api/tokens", {"name": "portal", "scopes": ["keys"]}, **coder).body["token"]
    program = {"Authorization": f"Bearer {made}"}
    assert control.ask("POST", "/api/keys", theirs, **program).code == "key_of_another", "a second hand is no other"
    assert control.ask("POST", "/api/keys", own, **program).code == "key_of_another", "nor does it speak for its maker"
    assert control.ask("POST", "/api/keys", own, **coder).status == 201
    kept = control.ask("POST", "/api/keys", theirs)
    assert kept.status == 201
    assert control.ask("POST", f"/api/keys/{kept.body['id']}/rotate", {}, **coder).code == "key_of_another"
    acting = {"workload": "assistant", "acts_for_others": True}
    for who in (coder, program):
        for wanted in (acting, {**acting, "user": "coder@acme.example"}):
            assert control.ask("POST", "/api/keys", wanted, **who).status == 403, "it reads what anybody may read"
    others = control.ask("POST", "/api/keys", acting)
    assert others.status == 201
    assert (
        control.ask("POST", f"/api/keys/{others.body['id']}/rotate", {}, **coder).code == "act_for_others_not_granted"
    )
    with connect(world.database.urls["control"]) as conn:
        told = conn.execute("SELECT subject FROM mail WHERE mark = %s", (f"key:{kept.body['id']}",)).fetchall()
    assert len(told) == 1 and "carries your permissions" in told[0][0]


def test_nobody_approves_a_request_made_with_their_own_token(world: World) -> None:
    """Somebody who may apply and approve asks by a token of their own: still their own change."""
    control = world.control
    both, other = world.person("both", "operations", "security"), world.person("peer", "security")
    made = control.ask("POST", "/api/tokens", {"name": "ci", "scopes": ["work", "read"]}, **both)
    assert made.status == 201
    program = {"Authorization": f"Bearer {made.body['token']}"}
    wanted = {"kind": "model", "subject": "model/acme/new", "what": {"version": "1"}, "reason": "it is needed"}
    asked = control.ask("POST", "/api/approvals", wanted, **program)
    assert asked.status in (200, 201), asked.body
    change = asked.body["id"]
    assert control.ask("POST", f"/api/changes/{change}/approve", {}, **both).code == "self_approval"
    assert control.ask("POST", f"/api/changes/{change}/approve", {}, **other).status == 200


def test_a_denial_is_logged_once(world: World) -> None:
    control = world.control
    eve = world.person("eve")
    for _ in range(3):
        assert control.ask("DELETE", "/api/people/ana@acme.example", **eve).code == "duty_missing"
        assert control.ask("POST", "/api/apply", {"files": {"a.yaml": "x"}}, **eve).code == "duty_missing"
    told = control.ask("GET", "/api/audit?action=denied&who=eve@acme.example").body["entries"]
    assert {entry["subject"].rpartition("/")[2] for entry in told} == {"{person}", "apply"}
    assert len(told) == 2 and "ana@" not in str(told)
