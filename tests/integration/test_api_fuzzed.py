"""Schemathesis on the whole control API: whatever fits its description, and much that does not, is never answered 500.

A few requests for each route in every run; many more as soak.
"""

from __future__ import annotations

import http.client
import json
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.integration.test_api_control import Control, run_control

from groundplan.testing.database import Cluster

ENDLESS = {"/api/calls/live", "/api/logout"}
"""Answers that go on, and the end of the session that asks."""
ODD = st.sampled_from([
    "", "\x00", "%00", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "{{7*7}}", "' OR 1=1 --", "\U0001f600", "a" * 5000,
    "http://169.254.169.254/", "file:///etc/passwd", "null", "-1", "1e400", "<script>alert(1)</script>",
])  # fmt: skip


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("fuzzed")
    workspace = ("--workspace", str(folder / "workspace"))
    with postgres_cluster.database() as database, run_control(database, folder, *workspace) as found:
        yield found


def fuzz(control: Control, examples: int) -> dict[str, int]:
    """Ask every route `examples` times by its description; how often each status came back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis  # noqa: PLC0415 -- heavy: not for whoever only collects tests
        from schemathesis.core.result import Ok  # noqa: PLC0415
    document = control.ask("GET", "/api/openapi.json").body
    schema = schemathesis.openapi.from_dict(document)
    seen: dict[str, int] = {}
    broken: list[str] = []
    person = control.sign_in("ana@acme.example")
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        if operation.path in ENDLESS or operation.path.endswith("/sign-out"):
            continue

        @settings(
            max_examples=examples, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(), as_person=st.booleans(), odd=st.none() | ODD)
        def ask(case: Any, as_person: bool, odd: str | None) -> None:
            path = case.path
            for name, value in (case.path_parameters or {}).items():
                path = path.replace(f"{{{name}}}", quote(str(value if odd is None else odd), safe=""))
            query = urlencode({str(k): str(v) for k, v in dict(case.query or {}).items()}, errors="replace")
            body = case.body if isinstance(case.body, (dict, list, str, int, float, bool)) else None
            session = person if as_person else {}
            status = raw(control, case.method, f"{path}?{query}" if query else path, body, session)
            seen[str(status)] = seen.get(str(status), 0) + 1
            if status >= 500 and status != 503:
                broken.append(f"{case.method} {path}?{query} {json.dumps(body, default=str)[:300]} -> {status}")

        ask()
    assert broken == []
    return seen


def raw(control: Control, method: str, path: str, body: Any, session: dict[str, str]) -> int:
    """The status; 0 where the client library itself refuses to send it."""
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=60)
    headers = {"Host": f"localhost:{control.port}", "Content-Type": "application/json"}
    if session:
        headers |= {"Cookie": session["Cookie"], "X-CSRF-Token": session["X_CSRF_Token"]}
    else:
        headers["Authorization"] = f"Bearer {control.home.operator_token.read_text().strip()}"
    try:
        connection.request(method, path, None if body is None else json.dumps(body, default=str), headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status
    except (ValueError, UnicodeError, http.client.InvalidURL):
        return 0
    finally:
        connection.close()


def test_no_route_answers_500(control: Control) -> None:
    seen = fuzz(control, 1)
    assert sum(seen.values()) > 100 and {"200", "400", "403", "404"} <= seen.keys(), seen


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_route_answers_500_for_long(control: Control) -> None:
    fuzz(control, 60)
