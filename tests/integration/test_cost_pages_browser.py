"""Every page of Cost in a real Chromium: it fits wide and narrow windows, light and dark, and shows what it has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.test_api_control import Control
from tests.integration.test_cost_book import newest_month
from tests.integration.test_cost_pages import control, controls

from groundplan.testing.browser import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["control", "controls"]
pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(300)]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))
PAGES = {
    "cost": ("/cost", "table, .empty"),
    "term": ("/cost/book", "svg"),
    "prompt": ("/cost/book?by=prompt", "svg"),
    "workload": ("/cost/workload/assistant", "svg"),
    "ahead": ("/cost/ahead", "svg"),
    "opportunities": ("/cost/opportunities", "table.cards"),
    "statements": ("/cost/statements", "a[href*='statement.pdf']"),
    "statement": ("/cost/statements/print?team=care&month={month}", "a[href*='statement.pdf']"),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_every_page_of_cost_fits(
    control: Control, browser: Browser, width: int, scheme: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cookie, _, value = control.sign_in()["Cookie"].partition("=")
    context = browser.new_context(
        base_url=f"http://localhost:{control.port}", viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    context.add_cookies([{"name": cookie, "value": value, "url": f"http://localhost:{control.port}"}])
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name, (path, shown) in PAGES.items():
        answer = page.goto(path.format(month=newest_month()))
        assert answer is not None and answer.status == 200, path
        assert page.locator(shown).count() >= 1, path
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        folder = tmp_path_factory.getbasetemp()
        page.screenshot(path=str(folder / f"cost-{name}-{width}-{scheme}.png"), full_page=True)
    assert wrong == []
    context.close()
