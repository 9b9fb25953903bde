"""The company's own sign-in against a real OpenID provider in a process of its own, and its directory by SCIM."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from tests.acceptance.stack import free_port
from tests.integration.test_api_control import Answer, Control, running

from groundplan.core.errors import Invalid
from groundplan.identity.oidc import Provider
from groundplan.testing.database import Cluster

PEOPLE = (
    {"sub": "sub-ana", "email": "ana@acme.example", "email_verified": True, "name": "Ana"},
    {"sub": "sub-thief", "email": "ana@acme.example", "email_verified": True, "name": "Not Ana"},
    {"sub": "sub-sam", "email": "sam@acme.example", "email_verified": False, "name": "Sam"},
    {"sub": "sub-nobody", "email": "nobody@acme.example", "email_verified": True, "name": "Nobody"},
)


@dataclass(frozen=True)
class Scene:
    control: Control
    issuer: int

    def sign_in(self, sub: str, *, other_browser: bool = False, replay: bool = False) -> Answer:
        """Go to the company's sign-in as a browser does, sign in there as `sub`, and come back."""
        away = self.control.ask("GET", "/sign-in/company", Authorization="")
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
        connection = http.client.HTTPConnection("localhost", self.issuer, timeout=10)
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
        with postgres_cluster.database() as database, running(database, folder, *workspace) as control:
            yield Scene(control, port)
    finally:
        for name in ("ISSUER", "CLIENT", "SECRET"):
            del os.environ[f"GROUNDPLAN_OIDC_{name}"]
        provider.terminate()
        provider.wait(10)


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 30
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


def test_the_companys_sign_in_proves_a_person(scene: Scene) -> None:
    session = scene.session(scene.sign_in("sub-ana"))
    assert (session["email"], session["proof"], session["proven"]) == ("ana@acme.example", "oidc", True)
    assert scene.session(scene.sign_in("sub-ana"))["email"] == "ana@acme.example", "known by subject from now on"


def test_a_second_subject_with_the_same_address_is_nobody(scene: Scene) -> None:
    scene.sign_in("sub-ana")
    assert scene.sign_in("sub-thief").code == "oidc_unknown"


def test_an_address_that_is_not_verified_and_people_who_are_not_here_are_nobody(scene: Scene) -> None:
    assert scene.sign_in("sub-sam").code == "oidc_unknown"
    assert scene.sign_in("sub-nobody").code == "oidc_unknown"


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
