"""The company's own sign-in against a real OpenID provider in a process of its own, and its directory by SCIM."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from tests.acceptance.stack import free_port
from tests.integration.test_api_control import Answer, Control, run_control

from groundplan.api.app import POOL_SIZE
from groundplan.core.errors import Invalid
from groundplan.identity.oidc import MAX_PROVIDER_REQUESTS, Provider, is_verified
from groundplan.identity.scim.body import USER
from groundplan.identity.scim.bulk import REQUEST
from groundplan.testing.database import Cluster

PEOPLE = (
    {"sub": "sub-ana", "email": "ana@acme.example", "email_verified": True, "name": "Ana"},
    {"sub": "sub-thief", "email": "ana@acme.example", "email_verified": True, "name": "Not Ana"},
    {"sub": "sub-sam", "email": "sam@acme.example", "email_verified": False, "name": "Sam"},
    {"sub": "sub-silent", "email": "sam@acme.example", "name": "Sam"},
    {"sub": "sub-mallory", "email": "mallory@acme.example", "email_verified": True, "name": "Mallory"},
    {"sub": "sub-nobody", "email": "nobody@acme.example", "email_verified": True, "name": "Nobody"},
)


@dataclass(frozen=True)
class Scene:
    control: Control
    issuer: int
    provider: subprocess.Popen[bytes]

    def sign_in(self, sub: str, *, wanted: str = "", other_browser: bool = False, replay: bool = False) -> Answer:
        """Go to the company's sign-in as a browser does, sign in there as `sub`, and come back."""
        away = self.control.ask("GET", f"/sign-in/company?next={quote(wanted)}", Authorization="")
        assert away.status == 303, away.body
        cookie = away.headers["set-cookie"].partition(";")[0]
        assert "HttpOnly" in away.headers["set-cookie"] and "samesite=lax" in away.headers["set-cookie"].lower()
        asked = urlsplit(away.headers["location"])
        query = parse_qs(asked.query)
        assert query["code_challenge_method"] == ["S256"] and query["nonce"] and query["state"]
        returned = self._there(f"{asked.path}?{asked.query}", sub)
        path = f"{returned.path}?{returned.query}"
        sent = {"Authorization": "", "Cookie": "" if other_browser else cookie}
        answer = self.control.ask("GET", path, **sent)
        return self.control.ask("GET", path, **sent) if replay else answer

    def _there(self, path: str, sub: str):  # type: ignore[no-untyped-def]
        connection = http.client.HTTPConnection("localhost", self.issuer, timeout=60)
        body = urlencode({"sub": sub})
        connection.request("POST", path, body, {"content-type": "application/x-www-form-urlencoded"})
        reply = connection.getresponse()
        page = reply.read().decode()
        connection.close()
        assert reply.status in (302, 303), page
        return urlsplit(reply.headers["location"])

    def session(self, answer: Answer) -> dict[str, object]:
        assert answer.status == 200, answer.body
        cookies = re.findall(r"groundplan_session_\d+=[^;,\s]+", answer.headers["set-cookie"])
        cookie = next(one for one in cookies if "_state" not in one)
        found = self.control.ask("GET", "/api/session", Authorization="", Cookie=cookie)
        return dict(found.body)


@pytest.fixture(scope="module")
def scene(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    port = free_port()
    provider = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--host", "localhost", "--port", str(port)),
            *[part for person in PEOPLE for part in ("--user-claims", json.dumps(person))],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder: Path = tmp_path_factory.mktemp("directory")
    os.environ.update(
        GROUNDPLAN_OIDC_ISSUER=f"http://localhost:{port}", GROUNDPLAN_OIDC_CLIENT="groundplan",
        GROUNDPLAN_OIDC_SECRET="env:TEST_OIDC_SECRET", TEST_OIDC_SECRET="a-secret",
    )  # fmt: skip
    try:
        _until_open(port)
        workspace = ("--workspace", str(folder / "workspace"))
        with postgres_cluster.database() as database, run_control(database, folder, *workspace) as control:
            yield Scene(control, port, provider)
    finally:
        for name in ("ISSUER", "CLIENT", "SECRET"):
            del os.environ[f"GROUNDPLAN_OIDC_{name}"]
        provider.terminate()
        provider.wait(60)


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection("localhost", port, timeout=5)
            connection.request("GET", "/.well-known/openid-configuration")
            found = json.loads(connection.getresponse().read())
            connection.close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            assert found["issuer"].startswith("http://localhost")
            return


def test_a_silent_provider_keeps_nobody_else_waiting(scene: Scene) -> None:
    """Whoever signs in waits for it without a connection to PostgreSQL, of which there are a dozen for everybody."""
    statuses: list[int] = []

    def go() -> None:
        statuses.append(scene.control.ask("GET", "/sign-in/company", Authorization="").status)

    scene.provider.send_signal(signal.SIGSTOP)
    try:
        waiting = [threading.Thread(target=go) for _ in range(POOL_SIZE + 4)]
        for each in waiting:
            each.start()
        time.sleep(0.2)
        assert scene.control.ask("GET", "/api/workloads").status == 200
        assert not statuses
    finally:
        scene.provider.send_signal(signal.SIGCONT)
    for each in waiting:
        each.join(60)
    assert statuses.count(303) >= MAX_PROVIDER_REQUESTS and set(statuses) <= {303, 503}


def test_the_companys_sign_in_proves_a_person(scene: Scene) -> None:
    session = scene.session(scene.sign_in("sub-ana"))
    assert (session["email"], session["proof"], session["proven"]) == ("ana@acme.example", "oidc", True)
    assert scene.session(scene.sign_in("sub-ana"))["email"] == "ana@acme.example", "known by subject from now on"


@pytest.mark.parametrize(
    ("wanted", "opened"),
    [("/calls?workload=a&status=ok", "/calls?workload=a&amp;status=ok"), ("//evil.example", "/begin"),
     ("https://evil.example", "/begin"), ('/x"><script>', "/x&quot;&gt;&lt;script&gt;"), ("", "/begin")],
)  # fmt: skip
def test_after_the_companys_sign_in_the_page_opens_that_was_asked_for(scene: Scene, wanted: str, opened: str) -> None:
    assert f'<a href="{opened}">' in bytes(scene.sign_in("sub-ana", wanted=wanted).body).decode()


def test_a_second_subject_with_the_same_address_is_nobody(scene: Scene) -> None:
    scene.sign_in("sub-ana")
    assert scene.sign_in("sub-thief").code == "oidc_unknown"


def test_an_address_that_is_not_verified_and_people_who_are_not_here_are_nobody(scene: Scene) -> None:
    assert scene.sign_in("sub-sam").code == "oidc_unknown"
    assert scene.sign_in("sub-nobody").code == "oidc_unknown"
    silent = scene.sign_in("sub-silent")
    assert silent.code == "oidc_unknown" and "email_verified" in str(silent.body), "saying nothing is no yes"


@pytest.mark.parametrize(
    ("claims", "told"),
    [({"email_verified": True}, (True, True)), ({"email_verified": "true"}, (True, True)), ({}, (False, True)),
     ({"email_verified": False}, (False, False)), ({"email_verified": "false"}, (False, False)),
     ({"email_verified": None}, (False, False)), ({"email_verified": 1.5}, (False, False))],
)  # fmt: skip
def test_only_what_is_called_verified_is_and_silence_where_that_is_declared(
    claims: dict[str, object], told: tuple[bool, bool]
) -> None:
    assert (is_verified(claims, trusted=False), is_verified(claims, trusted=True)) == told


def test_a_sign_in_belongs_to_one_browser_and_one_time(scene: Scene) -> None:
    assert scene.sign_in("sub-ana", other_browser=True).code == "oidc_state"
    assert scene.sign_in("sub-ana", replay=True).code == "ceremony"
    assert scene.control.ask("GET", "/sign-in/company/back?state=x&code=y", Authorization="").code == "oidc_state"


def test_an_issuer_is_https_or_on_this_machine() -> None:
    Provider("https://login.acme.example", "x", "y").check()
    Provider("http://localhost:1", "x", "y").check()
    for wrong in ("http://login.acme.example", "ftp://login.acme.example", "login.acme.example", "file:///etc/passwd"):
        with pytest.raises(Invalid):
            Provider(wrong, "x", "y").check()


@pytest.fixture(scope="module")
def directory(scene: Scene) -> dict[str, str]:
    made = scene.control.ask("POST", "/api/tokens", {"name": "directory", "scopes": ["scim"], "days": 30})
    return {"Authorization": f"Bearer {made.body['token']}"}


def user_of(name: str, **more: object) -> dict[str, object]:
    email = [{"value": f"{name}@acme.example", "primary": True}]
    return {"schemas": [USER], "userName": name, "emails": email, "name": {"givenName": name.title()}, **more}


def test_the_directory_adds_changes_and_ends_people(scene: Scene, directory: dict[str, str]) -> None:
    ask = scene.control.ask
    made = ask("POST", "/api/scim/v2/Users", user_of("kim", externalId="e-1"), **directory)
    assert made.status == 201 and made.body["active"] is True and made.body["externalId"] == "e-1"
    assert ask("POST", "/api/scim/v2/Users", user_of("kim"), **directory).status == 409
    found = ask("GET", "/api/scim/v2/Users?filter=userName%20eq%20%22KIM%22", **directory).body
    assert found["totalResults"] == 1 and found["Resources"][0]["id"] == made.body["id"]
    path = f"/api/scim/v2/Users/{made.body['id']}"
    renamed = ask("PUT", path, user_of("kim", displayName="Kim Moe"), **directory)
    assert renamed.body["displayName"] == "Kim Moe"
    off = {"Operations": [{"op": "Replace", "path": "active", "value": "False"}]}
    session = scene.control.follow_link("kim@acme.example")
    assert ask("GET", "/api/session", **session).status == 200
    assert ask("PATCH", path, off, **directory).body["active"] is False
    assert ask("GET", "/api/session", **session).status == 401, "signed out at once"
    on = {"Operations": [{"op": "replace", "value": {"active": True, "name.familyName": "Berg"}}]}
    back = ask("PATCH", path, on, **directory).body
    assert back["active"] is True and back["name"]["familyName"] == "Berg"
    assert ask("DELETE", path, **directory).status == 204
    assert ask("GET", path, **directory).status == 404, "gone for the directory"
    assert ask("PATCH", path, on, **directory).status == ask("DELETE", path, **directory).status == 404
    assert ask("GET", "/api/scim/v2/Users?filter=userName%20eq%20%22kim%22", **directory).body["totalResults"] == 0
    left = next(each for each in ask("GET", "/api/people").body["people"] if each["email"] == "kim@acme.example")
    assert left["active"] is False, "and here for what they did"
    again = ask("POST", "/api/scim/v2/Users", user_of("kim"), **directory)
    assert again.status == 201 and again.body["active"] is True and "displayName" not in again.body
    assert ask("GET", "/api/scim/v2/Users/01a212d3-0000-7000-8000-000000000000", **directory).status == 404


def test_the_directory_keeps_groups(scene: Scene, directory: dict[str, str]) -> None:
    ask = scene.control.ask
    lee = ask("POST", "/api/scim/v2/Users", user_of("lee"), **directory).body["id"]
    ana = ask("GET", "/api/scim/v2/Users?filter=userName%20eq%20%22ana@acme.example%22", **directory).body
    ana = ana["Resources"][0]["id"]
    made = ask("POST", "/api/scim/v2/Groups", {"displayName": "legal", "members": [{"value": lee}]}, **directory)
    assert made.status == 201
    path = f"/api/scim/v2/Groups/{made.body['id']}"
    add = {"Operations": [{"op": "add", "path": "members", "value": [{"value": ana}]}]}
    both = ask("PATCH", path, add, **directory).body["members"]
    assert {one["value"] for one in both} == {lee, ana}
    drop = {"Operations": [{"op": "remove", "path": f'members[value eq "{lee}"]'}]}
    assert [one["value"] for one in ask("PATCH", path, drop, **directory).body["members"]] == [ana]
    assert (
        "legal" in next(p for p in ask("GET", "/api/people").body["people"] if p["email"].startswith("ana"))["groups"]
    )
    renamed = ask("PUT", path, {"displayName": "law"}, **directory)
    assert renamed.status == 400 and renamed.body["scimType"] == "mutability", "as its schema says"
    assert ask("DELETE", path, **directory).status == 204
    assert ask("GET", path, **directory).status == 404
    assert "legal" not in str(ask("GET", "/api/people").body["people"]), "nobody is in it"
    assert ask("POST", "/api/scim/v2/Groups", {"displayName": "legal"}, **directory).body["members"] == []


def test_the_directory_reads_what_it_wrote(scene: Scene, directory: dict[str, str]) -> None:
    ask = scene.control.ask
    emails = [
        {"value": "Max@Acme.example", "type": "work", "primary": True},
        {"value": "max@home.example", "type": "home"},
    ]
    name = {"formatted": "Max B. Roe", "familyName": "Roe"}
    made = ask("POST", "/api/scim/v2/Users", {"userName": "max", "emails": emails, "name": name}, **directory).body
    assert made["name"] == name and "displayName" not in made
    assert [each["value"] for each in made["emails"]] == ["max@acme.example", "max@home.example"]
    path = f"/api/scim/v2/Users/{made['id']}"
    work = {"op": "replace", "path": 'emails[type eq "work"].value', "value": "max.roe@acme.example"}
    gone = {"op": "remove", "path": 'emails[type eq "home"]'}
    done = ask("PATCH", path, {"Operations": [work, gone, {"op": "remove", "path": "name"}]}, **directory).body
    assert done["emails"] == [{"value": "max.roe@acme.example", "type": "work", "primary": True}]
    assert "name" not in done
    assert ask("POST", "/api/login-links", {"person": "max.roe@acme.example"}).status == 201, "known by the new one"
    taken = {"userName": "max", "emails": [{"value": "sam@acme.example"}]}
    assert ask("PUT", path, taken, **directory).body["scimType"] == "uniqueness"
    assert ask("PATCH", path, {"Operations": [{"op": "replace", "path": "active", "value": False}]}, **directory)
    for silent in ({"userName": "max", "emails": done["emails"]},):
        assert ask("PUT", path, silent, **directory).body["active"] is False, "what is not said brings nobody back"
    everything = ask("POST", "/api/scim/v2/.search", {"count": 200}, **directory).body
    kinds = [each["meta"]["resourceType"] for each in everything["Resources"]]
    assert kinds == sorted(kinds, reverse=True) and {*kinds} == {"User", "Group"}
    assert everything["totalResults"] == len(kinds)
    two = ask("POST", "/api/scim/v2/.search", {"startIndex": kinds.count("User"), "count": 2}, **directory).body
    assert [each["meta"]["resourceType"] for each in two["Resources"]] == ["User", "Group"], "one list"


def bulk_of(*operations: Any, **more: object) -> dict[str, object]:
    return {"schemas": [REQUEST], "Operations": list(operations), **more}


def test_bulk_makes_many_at_once_and_what_refers_waits_for_what_it_names(
    scene: Scene, directory: dict[str, str]
) -> None:
    ask = scene.control.ask
    group = {"displayName": "bulk-group", "members": [{"value": "bulkId:b"}, {"value": "bulkId:a"}]}
    body = bulk_of(
        {"method": "POST", "path": "/Groups", "bulkId": "g", "data": group},
        {"method": "POST", "path": "/Users", "bulkId": "a", "data": user_of("bulk-a")},
        {"method": "post", "path": "/Users", "bulkId": "b", "data": user_of("bulk-b")},
        {"method": "POST", "path": "/Users", "bulkId": "twice", "data": user_of("bulk-a")},
        {"method": "PATCH", "path": "/Users/bulkId:a",
         "data": {"Operations": [{"op": "replace", "path": "displayName", "value": "Bulk A"}]}},
        {"method": "POST", "path": "/Groups", "bulkId": "lost",
         "data": {"displayName": "lost-group", "members": [{"value": "bulkId:nobody"}]}},
    )  # fmt: skip
    told = ask("POST", "/api/scim/v2/Bulk", body, **directory)
    assert told.status == 200, told.body
    made = told.body["Operations"]
    assert [(each["method"], each["status"]) for each in made] == [
        ("POST", "201"), ("POST", "201"), ("POST", "201"), ("POST", "409"), ("PATCH", "200"), ("POST", "409"),
    ]  # fmt: skip
    assert made[0]["bulkId"] == "g" and "location" not in made[3] and made[5]["response"]["scimType"] == "invalidValue"
    held = ask("GET", f"/api/scim/v2/{made[0]['location']}", **directory).body
    assert {f"Users/{one['value']}" for one in held["members"]} == {made[1]["location"], made[2]["location"]}
    assert ask("GET", f"/api/scim/v2/{made[1]['location']}", **directory).body["displayName"] == "Bulk A"
    ends = [{"method": "DELETE", "path": f"/{made[place]['location']}"} for place in (1, 2)]
    unknown = {"method": "DELETE", "path": "/Users/01a212d3-0000-7000-8000-000000000000"}
    stopped = ask("POST", "/api/scim/v2/Bulk", bulk_of(ends[0], unknown, ends[1], failOnErrors=1), **directory).body
    assert [each["status"] for each in stopped["Operations"]] == ["204", "404"], "nothing more after so many failures"
    assert ask("GET", f"/api/scim/v2/{made[2]['location']}", **directory).body["active"] is True
    wrong: list[dict[str, object]] = [
        {}, bulk_of({"method": "GET", "path": "/Users"}), bulk_of({"method": "POST", "path": "/Users", "data": {}}),
        bulk_of({"method": "PUT", "path": "/Users", "data": {}}), bulk_of(failOnErrors=0),
        bulk_of(*[{"method": "POST", "path": "/Users", "bulkId": "x", "data": {}}] * 2),
    ]  # fmt: skip
    for each in wrong:
        assert ask("POST", "/api/scim/v2/Bulk", each, **directory).body["scimType"] == "invalidSyntax", each
    many = bulk_of(*[{"method": "DELETE", "path": "/Users/x"}] * 1001)
    assert ask("POST", "/api/scim/v2/Bulk", many, **directory).status == 413


def test_bulk_tells_each_operation_what_a_request_of_its_own_is_told(scene: Scene, directory: dict[str, str]) -> None:
    ask = scene.control.ask
    sent = [
        ("POST", "/Users", user_of("alone")), ("POST", "/Users", {"userName": "a\nb"}),
        ("POST", "/Users", user_of("alone")), ("POST", "/Users", {"userName": "half\ud800", "emails": []}),
        ("POST", "/Groups", {"displayName": "everyone"}), ("POST", "/Groups", {"displayName": "nul\x00"}),
        ("PATCH", "/Users/01a212d3-0000-7000-8000-000000000000", {"Operations": []}),
        ("DELETE", "/Users/no-id", {}), ("PATCH", "/Groups/no-id", {"Operations": []}),
        ("POST", "/Users", user_of("behind")),
    ]  # fmt: skip
    single = [ask(method, f"/api/scim/v2{path}", body, **directory) for method, path, body in sent]
    assert [each.status for each in single] == [201, 400, 409, 400, 400, 400, 404, 404, 404, 201]
    for each in single:
        if each.status == 201:
            ask("DELETE", f"/api/scim/v2/Users/{each.body['id']}", **directory)
    operations = [
        {"method": method, "path": path, "data": body, **({"bulkId": str(at)} if method == "POST" else {})}
        for at, (method, path, body) in enumerate(sent)
    ]
    told = ask("POST", "/api/scim/v2/Bulk", bulk_of(*operations), **directory)
    assert told.status == 200, told.body
    for alone, each in zip(single, told.body["Operations"], strict=True):
        assert each["status"] == str(alone.status), each
        assert each.get("response") == (alone.body if alone.status >= 400 else None)


def test_lists_are_sorted_as_asked(scene: Scene, directory: dict[str, str]) -> None:
    ask = scene.control.ask
    for name, family in (("sort-b", "Alm"), ("sort-a", "Zorn"), ("sort-c", "Moe")):
        user = user_of(name) | {"name": {"givenName": "S", "familyName": family}}
        assert ask("POST", "/api/scim/v2/Users", user, **directory).status == 201

    def listed(query: str) -> list[str]:
        found = ask("GET", f"/api/scim/v2/Users?count=200&{query}", **directory).body["Resources"]
        return [each["userName"] for each in found if each["userName"].startswith("sort-")]

    assert listed("sortBy=userName") == ["sort-a", "sort-b", "sort-c"]
    assert listed("sortBy=userName&sortOrder=descending") == ["sort-c", "sort-b", "sort-a"]
    assert listed("sortBy=name.familyName") == ["sort-b", "sort-c", "sort-a"]
    assert listed("") == ["sort-b", "sort-a", "sort-c"], "as they came"
    assert "scim_sort" in ask("GET", "/api/scim/v2/Users?sortBy=shoeSize", **directory).body["detail"]
    groups = ask("GET", "/api/scim/v2/Groups?sortBy=displayName&sortOrder=descending", **directory).body["Resources"]
    names = [each["displayName"] for each in groups]
    assert names == sorted(names, reverse=True)
    config = ask("GET", "/api/scim/v2/ServiceProviderConfig", **directory).body
    assert config["sort"] == {"supported": True} and config["bulk"]["supported"] is True


def test_what_is_no_scim_is_refused_and_other_tokens_too(scene: Scene, directory: dict[str, str]) -> None:
    ask = scene.control.ask
    for wrong in ({}, {"userName": 7}, {"userName": "x", "emails": [{"value": "no address"}]}, {"userName": "a\nb"}):
        assert ask("POST", "/api/scim/v2/Users", wrong, **directory).status in {400, 422}, wrong
    who = ask("GET", "/api/scim/v2/Users?count=1", **directory).body["Resources"][0]["id"]
    for broken in ({}, {"Operations": 1}, {"Operations": [1]}, {"Operations": [{"op": "move", "path": "active"}]}):
        assert ask("PATCH", f"/api/scim/v2/Users/{who}", broken, **directory).status in {400, 422}, broken
    assert (
        ask("GET", "/api/scim/v2/Users?filter=emails%20co%20%22x%22", **directory).body["scimType"] == "invalidFilter"
    )
    assert ask("GET", "/api/scim/v2/Users").status == 403, "not even the operator"
    other = ask("POST", "/api/tokens", {"name": "r", "scopes": ["read"], "days": 1}).body["token"]
    assert ask("GET", "/api/scim/v2/Users", Authorization=f"Bearer {other}").status == 403
    assert ask("GET", "/api/keys", **directory).status == 403, "the directory's token reads nothing else"


def test_a_directory_makes_nobody_who_decides_another_person(scene: Scene, directory: dict[str, str]) -> None:
    """It may call them otherwise, and that address is then not theirs at the company's sign-in."""
    ask = scene.control.ask
    sam = ask("POST", "/api/scim/v2/Users", user_of("sam"), **directory).body
    path = f"/api/scim/v2/Users/{sam['id']}"
    assert ask("PUT", path, {**user_of("mallory"), "userName": "sam"}, **directory).status == 200
    taken = scene.sign_in("sub-mallory")
    assert taken.code == "oidc_address_changed", taken.body
    assert ask("PUT", path, user_of("sam"), **directory).status == 200
    new = ask("POST", "/api/scim/v2/Users", user_of("tove"), **directory).body["id"]
    assert (
        ask("PUT", f"/api/scim/v2/Users/{new}", {**user_of("mallory"), "userName": "tove"}, **directory).status == 200
    )
    assert scene.session(scene.sign_in("sub-mallory"))["email"] == "mallory@acme.example", "who decides nothing may be"
