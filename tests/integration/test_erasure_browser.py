"""The pages of erasures and of the search index in a real Chromium: they fit, and an erasure is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.test_api_control import WORKSPACE, Control, run_control

from groundplan.testing.browser import chromium, find_chromium
from groundplan.testing.database import Cluster

if TYPE_CHECKING:
    from playwright.sync_api import Browser


pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(300)]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("pages")
    text = WORKSPACE.replace("approvals: {parts: []}\n", "approvals: {parts: []}\nindex: {characters: 600}\n")
    with postgres_cluster.database() as database, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.integration.test_api_control.WORKSPACE", text)
        with run_control(database, folder, module="groundplan.console.app") as found:
            yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_pages_fit_and_a_request_is_asked_for_and_told(
    control: Control, browser: Browser, width: int, scheme: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = browser.new_context(
        base_url=f"http://localhost:{control.port}", viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page, folder = context.new_page(), tmp_path_factory.getbasetemp()
    page.goto(control.ask("POST", "/api/login-links", {"person": None}).body["url"])
    for path, heading in (("/knowledge/index", "Search index"), ("/governance/erasures", "Erasures")):
        page.goto(path)
        assert page.locator("h1").inner_text() == heading
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        page.screenshot(path=str(folder / f"{path.rpartition('/')[2]}-{width}-{scheme}.png"), full_page=True)
    page.fill("input[name=person]", "ana@acme.example")
    page.fill("input[name=reason]", "request of 25 November")
    page.click("form[action='/do/erasures/ask'] button")
    assert "Erasure of ana@acme.example" in page.locator("h1").inner_text()
    assert "still here" in page.content()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=str(folder / f"erasure-{width}-{scheme}.png"), full_page=True)
    page.click("button.danger")
    assert "compliance" in page.content()  # the operator may not
    context.close()
