"""The directory's API by a tester that others wrote for RFC 7643 and 7644, against a running control process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from httpx2 import Client
from tests.integration.test_api_control import run_control

from groundplan.testing.database import Cluster

if TYPE_CHECKING:
    from scim2_client.engines.httpx2 import SyncSCIMClient


@pytest.fixture(scope="module")
def client(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncSCIMClient]:
    from scim2_client.engines.httpx2 import SyncSCIMClient  # noqa: PLC0415 -- heavy

    folder = tmp_path_factory.mktemp("scim")
    with (
        postgres_cluster.database() as database,
        run_control(database, folder, "--workspace", str(folder / "workspace")) as control,
    ):
        token = control.ask("POST", "/api/tokens", {"name": "directory", "scopes": ["scim"], "days": 1}).body["token"]
        headers = {"Authorization": f"Bearer {token}"}
        with Client(base_url=f"http://127.0.0.1:{control.port}/api/scim/v2", headers=headers, timeout=60) as http:
            made = SyncSCIMClient(http)
            made.discover()
            yield made


KNOWN = {
    (
        "check_remove_attribute",
        "did not remove attribute 'active'",
    ): "somebody is active or is not, and RFC 7643 leaves "
    "to the provider what unassigned means: nobody comes back because an attribute is taken away",
}
"""Where this is not what the tester expects (its title, words of its reason), and why."""


def test_a_tester_of_others_finds_only_what_is_meant_to_be_so(client: SyncSCIMClient) -> None:
    from scim2_tester import Status, check_server  # noqa: PLC0415 -- heavy

    results = check_server(client)
    other = [each for each in results if each.status not in (Status.SUCCESS, Status.SKIPPED)]
    unknown = [
        (each.title, each.reason)
        for each in other
        if not any(each.title == title and words in str(each.reason) for title, words in KNOWN)
    ]
    assert unknown == []
    assert len(results) - len(other) >= 40
