"""The page of opportunities in a real Chromium: empty it says what to do, and it fits any width, light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.acceptance.stack import Stack
from tests.integration.test_content import stack

from groundplan.testing.browser import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["stack"]
pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(300)]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_opportunities_are_shown_without_errors_and_fit(
    stack: Stack, browser: Browser, width: int, scheme: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = browser.new_context(
        base_url=f"http://localhost:{stack.control_port}",
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
    )
    page = context.new_page()
    page.goto(stack.cli("login")["url"])
    page.goto("/cost/opportunities")
    assert page.locator("h1").inner_text() == "Opportunities"
    assert page.locator("nav.tabs a[aria-current=page]").inner_text() == "Opportunities"
    assert page.locator("p.empty, table.cards").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=str(tmp_path_factory.getbasetemp() / f"opportunities-{width}-{scheme}.png"), full_page=True)
    context.close()
