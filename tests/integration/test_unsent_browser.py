"""Hasty hands at the console in a real Chromium: a button pressed twice, a session that is over in the middle of a
form, and the way back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tests.integration.test_api_control import Control, run_control

from groundplan.testing.browser import chromium, find_chromium
from groundplan.testing.database import Cluster

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(300)]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))
STOP = "form[action='/do/kill'] button"


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("hasty")
    with (
        postgres_cluster.database() as database,
        run_control(
            database, folder, "--workspace", str(folder / "workspace"), module="groundplan.console.app"
        ) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def kills(control: Control) -> list[str]:
    return [each["reason"] for each in control.ask("GET", "/api/status").body["kills"]]


def link(control: Control) -> str:
    return str(control.ask("POST", "/api/login-links", {"person": None}).body["url"])


def filled(page: Page, reason: str) -> None:
    page.goto("/kill")
    page.select_option("form[action='/do/kill'] select[name=scope]", "deployment/local")
    page.fill("form[action='/do/kill'] input[name=reason]", reason)


def test_nothing_is_sent_twice_and_nothing_typed_is_lost(control: Control, browser: Browser) -> None:
    context = browser.new_context(base_url=f"http://localhost:{control.port}")
    page = context.new_page()
    page.goto(link(control))
    filled(page, "pressed twice")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    with page.expect_navigation():
        page.dblclick(STOP)
    assert len(sent) == 1 and kills(control) == ["pressed twice"]
    control.ask("POST", "/api/kill/lift", {"scope": "deployment/local", "reason": "over"})

    filled(page, "it took long to write")
    context.clear_cookies()
    with page.expect_navigation():
        page.click(STOP)
    assert page.locator("h1").inner_text() == "This was not sent"
    other = context.new_page()
    other.goto(link(control))
    other.close()
    with page.expect_navigation():
        page.click("main button.primary")
    assert "you signed in again" in page.content() and kills(control) == []
    with page.expect_navigation():
        page.click("main button.primary")
    assert kills(control) == ["it took long to write"] and page.locator(".notice-problem").count() == 0
    context.close()
