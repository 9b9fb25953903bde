"""Calls in a real Chromium: live traffic, filters, where the time went, kept content, the playground, health."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.acceptance.stack import Stack, request, wait_until
from tests.integration.test_content import CARD, ask, call_of, stack

from groundplan.testing.browser import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

__all__ = ["stack"]
UNNAMED = """[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a, [role=img]')]
  .filter(one => !(one.labels && one.labels.length) && !one.getAttribute('aria-label') && !one.textContent.trim())
  .map(one => one.outerHTML)"""
HOSTILE = '<img src=x onerror="window.hit=1">'
LIVE_MS = 30_000
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def cookie(stack: Stack, browser: Browser) -> Any:
    context = browser.new_context()
    page = context.new_page()
    page.goto(stack.cli("login")["url"])
    return context.storage_state()


@pytest.fixture(scope="module")
def tab(stack: Stack, browser: Browser, cookie: Any) -> Iterator[Page]:
    """What signed in. To start what shows a page takes longer than to show it."""
    context = browser.new_context(storage_state=cookie, base_url=f"http://localhost:{stack.control_port}")
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """A signed-in page that fails the test for any error in it."""
    problems: list[str] = []

    def heed(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    def heed_error(error: Any) -> None:
        problems.append(str(error))

    tab.set_viewport_size({"width": 1280, "height": 720})
    tab.emulate_media(color_scheme="light")
    tab.on("console", heed)
    tab.on("pageerror", heed_error)
    yield tab
    tab.goto("about:blank")
    tab.remove_listener("console", heed)
    tab.remove_listener("pageerror", heed_error)
    assert not problems


@pytest.fixture(scope="module")
def kept(stack: Stack) -> str:
    """A call whose content is kept, with its receipt in the ledger."""
    call = call_of(stack.chat(stack.key("careful", "--user", "ana@acme.example"), f"{HOSTILE} pay {CARD}"))

    def there() -> bool:
        answer = ask(stack, "GET", f"/api/calls/{call}")
        return answer.status == 200 and answer.body["content"] is not None

    wait_until(there, 60, "the receipt and its content are there")
    return call


def test_a_call_appears_without_reloading_and_counts_in_the_traffic(stack: Stack, page: Page, kept: str) -> None:
    page.goto("/calls?workload=careful")
    assert page.locator("svg.spark rect").count() > 0
    assert page.locator(f"a[href='/calls/{kept}']").count() == 1
    page.locator("tbody td[data-label=Workload] a").last.focus()
    call = call_of(stack.chat(stack.key("careful"), "hello"))
    page.wait_for_selector(f"a[href='/calls/{call}']", timeout=LIVE_MS)
    row = page.evaluate("document.activeElement.closest('tr').querySelector('a').getAttribute('href')")
    assert row == f"/calls/{kept}", "what was opened in another tab keeps the focus, and the page goes on"
    label = page.locator("svg.spark").get_attribute("aria-label") or ""
    assert int(label.split()[0]) >= 2 and " 0 of them failed" in label


def test_live_calls_can_be_paused_and_what_is_selected_stays(
    stack: Stack, browser: Browser, cookie: Any, kept: str
) -> None:
    context = browser.new_context(storage_state=cookie, base_url=f"http://localhost:{stack.control_port}")
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/live/calls" in request.url else None)
    page.clock.install()
    page.goto("/calls?workload=careful")

    def renewals() -> int:
        """How many renewals three rounds begin."""
        page.evaluate("0")  # what was sent before has been heard of
        asked.clear()
        page.clock.run_for(7_500)
        page.evaluate("0")
        return len(asked)

    page.click("text=Pause updates")
    call = call_of(stack.chat(stack.key("careful"), "hello"))
    wait_until(lambda: ask(stack, "GET", f"/api/calls/{call}").status == 200, 60, "it is in the ledger")
    row = page.locator(f"[data-live] a[href='/calls/{call}']")
    assert renewals() == 0 and row.count() == 0
    page.evaluate("getSelection().selectAllChildren(document.querySelector('[data-live] tbody tr'))")
    page.locator("button.pause").evaluate("button => button.click()")  # a click would end the selection
    assert renewals() == 0 and page.evaluate("String(getSelection())")
    page.evaluate("getSelection().removeAllRanges()")

    def shown() -> bool:
        page.clock.run_for(2_500)
        return row.count() > 0

    wait_until(shown, LIVE_MS / 1000, "it goes on")
    context.close()


def test_the_command_line_lists_the_same_calls(stack: Stack, page: Page, kept: str) -> None:
    page.goto("/calls?workload=careful&person=ana@acme.example")
    shown = [link.get_attribute("href") for link in page.locator("tbody td:first-child a[href^='/calls/']").all()]
    options = ("--workload", "careful", "--person", "ana@acme.example")
    listed = stack.cli("calls", *options)
    assert [f"/calls/{call['id']}" for call in listed["calls"]] == shown and shown[-1] == f"/calls/{kept}", (
        shown,
        listed,
    )


def test_a_filter_by_deployment_applies_to_live_calls(stack: Stack, page: Page, kept: str) -> None:
    page.goto("/calls")
    page.select_option("select[name=deployment]", "model")
    page.select_option("select[name=workload]", "careful")
    with page.expect_navigation():
        page.click("text=Show >> nth=0")
    assert "deployment=model" in page.url
    assert set(page.locator("tbody td[data-label=Workload]").all_inner_texts()) == {"careful"}
    live = page.locator("[data-live]").get_attribute("data-live") or ""
    assert "workload=careful" in live and "deployment=model" in live


def test_a_receipt_shows_timings_and_stored_content(stack: Stack, page: Page, kept: str) -> None:
    page.goto(f"/calls/{kept}")
    (key,) = [item for item in ask(stack, "GET", "/api/keys").body["keys"] if item["id"] == key_of(stack, kept)]
    assert f"Asked at chat.completions with the key {key['prefix']}…" in page.locator("p.lead").inner_text()
    page.click(f"text=key {key['prefix']}")
    assert page.locator("tbody td:first-child a").get_attribute("href") == f"/calls/{kept}", "the calls with this key"
    page.goto(f"/calls/{kept}")
    rows = page.locator("svg.waterfall text:not(.wf-told)").all_text_contents()
    assert rows[0] == "identify" and rows[-1] == "1. model" and "serve" in rows
    assert page.locator("svg.waterfall .wf-receive, svg.waterfall .wf-wait").count() >= 1
    page.click("text=Read it")
    prompt = page.locator("pre").first.inner_text()
    assert prompt == f"user: {HOSTILE} pay [card]" and CARD not in page.content()
    assert page.evaluate("window.hit") is None, "what people wrote is text and never runs"
    log = ask(stack, "GET", "/api/audit?limit=5").body["entries"]
    assert any(entry["action"] == "content.read" for entry in log)


def test_keys_are_listed_and_revoked(stack: Stack, page: Page) -> None:
    secret = stack.key("quiet", "--tag", "portal", "--budget", "5 USD/month", "--days", "3")
    stack.key("quiet", "--on-behalf-of")
    page.goto("/keys?workload=quiet&tag=portal")
    row = page.locator("tbody tr")
    assert row.count() == 1
    told = row.inner_text()
    for part in (secret[:9], "portal", "quiet", "nobody", "active", "$5.00 a month"):
        assert part in told, (part, told)
    assert secret not in page.content(), "a key is shown once, where it is made"
    row.locator("summary").click()
    with page.expect_navigation():
        row.locator("button").click()
    assert f"The key {secret[:9]}… is revoked at the gateway" in page.locator(".notice").inner_text()
    assert "/keys?workload=quiet&tag=portal" in page.url, "the filter is kept"
    assert "No key matches" in page.inner_text("main"), "an ended one is no longer in use"
    page.goto("/keys?workload=quiet")
    assert "whom each call names" in page.locator("tbody").inner_text()
    page.goto("/keys?tag=portal&ended=yes")
    assert "revoked" in row.inner_text() and row.locator("button").count() == 0
    assert stack.chat(secret, "hello").status == 401


def test_the_playground_makes_a_real_call_and_links_its_receipt(stack: Stack, page: Page) -> None:
    page.goto("/playground")
    page.select_option("select[name=workload]", "quiet")
    page.fill("textarea", f"hello {HOSTILE}")
    page.click("button.primary")
    page.wait_for_selector("section.panel")
    page.wait_for_load_state()  # with its style sheet, by which words stand apart
    facts = page.locator("section.panel .facts").inner_text()
    assert "model" in facts and "answered at here" in facts and "$" in facts and "from the cache" in facts
    assert page.locator("section.panel .facts li", has_text="attempt").inner_text().split() == ["1", "attempt"]
    assert page.locator("section.panel p.why").first.inner_text().startswith("It is placed at model: ")
    assert "None: the workload has no sources" in page.inner_text("section.panel")
    assert page.evaluate("window.hit") is None
    link = page.locator("section.panel a[href^='/calls/']").get_attribute("href") or ""
    wait_until(lambda: ask(stack, "GET", f"/api{link}").status == 200, 60, "the receipt is there")
    keys = ask(stack, "GET", "/api/keys").body["keys"]
    assert keys[0]["workload"] == "quiet" and keys[0]["state"] == "revoked", "its key is good for nothing any more"


def test_the_cost_page_names_who_is_near_a_budget(stack: Stack, page: Page) -> None:
    key = stack.key("thrifty")
    for _ in range(200):
        answer = stack.chat(key, "hello", max_tokens=20)
        if answer.status == 429:
            break
    assert answer.code == "budget_exhausted"

    def near() -> bool:
        budgets = ask(stack, "GET", "/api/limits").body["budgets"]
        return [row["budget"] for row in budgets if row["near"]] == ["thrifty"]

    wait_until(near, 60, "what was spent is in the ledger")
    page.goto("/cost")
    shown = page.locator(".budget", has=page.locator("strong:text-is('thrifty')")).inner_text()
    assert re.search(r"near: (8|9)\d % of what workload/thrifty may spend", shown), shown
    first = page.locator(".budget strong").first.inner_text()
    assert first == "thrifty", "who is nearest comes first"
    others = page.locator(".budget", has=page.locator("strong:text-is('quiet')"))
    assert "near" not in (others.inner_text() if others.count() else "")


def test_a_question_with_a_foreign_csrf_token_is_not_sent_and_not_lost(stack: Stack, tab: Page) -> None:
    before = len(ask(stack, "GET", "/api/keys").body["keys"])
    tab.goto("/playground")
    tab.evaluate("document.querySelector('form.play input[name=csrf]').value = 'forged'")
    tab.fill("textarea", "hello")
    tab.click("button.primary")
    assert "nothing was done" in tab.locator("[role=alert]").inner_text()
    assert tab.locator("[name=question]").input_value() == "hello"
    assert len(ask(stack, "GET", "/api/keys").body["keys"]) == before


def test_every_page_of_calls_fits_windows_of_any_width_in_light_and_dark(page: Page, kept: str) -> None:
    """No script and no answer depends on width or scheme, so each page is loaded once."""
    long_names = ("/workloads", "/workloads/thrifty", "/?workload=thrifty")
    calls = ("/calls", f"/calls/{kept}", "/playground", "/operations", "/calls?workload=nobody", "/keys")
    for path in (*calls, *long_names):
        page.goto(path)
        for width, scheme in product((1280, 400), SCHEMES):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("[innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [width, True], (
                path,
                scheme,
            )
            assert page.evaluate(UNNAMED) == [], path


def test_on_paper_tables_are_whole_and_dark_on_light(page: Page, kept: str) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 between the usual margins
    for path in ("/calls", f"/calls/{kept}", "/operations", "/keys"):
        page.goto(path)
        assert not page.locator("nav.entries").is_visible() and not page.locator(".pause:visible").count()
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 42, 55)", path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.locator("thead:visible").count() == page.locator("thead").count(), path
    page.emulate_media(media="screen")


def test_a_failing_deployment_is_shown_as_open_until_it_recovers(stack: Stack, page: Page) -> None:
    page.goto("/operations")
    assert page.locator("td[data-label=Breaker]").inner_text() == "closed"
    key, port = stack.key("quiet"), upstream_port(stack)
    assert request(port, "POST", "/control", {"mode": "down"}).status == 200
    try:
        for _ in range(6):
            stack.chat(key, "hello")
        page.wait_for_selector("td[data-label=Breaker]:has-text('open')", timeout=LIVE_MS + 4_000)
        page.goto("/calls")
        page.wait_for_selector(".notice-problem:has-text('is tried last')", timeout=LIVE_MS)
    finally:
        request(port, "POST", "/control", {"mode": "ok"})


def test_a_signed_out_viewer_of_live_calls_is_told(stack: Stack, browser: Browser, cookie: Any) -> None:
    """What goes on by itself would show the traffic of that moment for good."""
    context = browser.new_context(storage_state=cookie, base_url=f"http://localhost:{stack.control_port}")
    page = context.new_page()
    page.goto("/calls")
    context.clear_cookies()
    page.wait_for_selector("main:has-text('groundplan login')", timeout=LIVE_MS)
    context.close()


def test_stale_live_data_is_marked_as_old(browser: Browser, cookie: Any, stack: Stack) -> None:
    context = browser.new_context(storage_state=cookie, base_url=f"http://localhost:{stack.control_port}")
    page = context.new_page()
    page.clock.install()
    page.goto("/calls")
    page.route("**/live/calls*", lambda route: route.fulfill(status=503))
    page.clock.run_for(12_000)
    page.wait_for_selector(".notice:has-text('Not updated since')")
    page.unroute("**/live/calls*")

    def told() -> bool:
        page.clock.run_for(2_500)
        return page.locator(".notice:has-text('Not updated since')").count() > 0

    wait_until(lambda: not told(), LIVE_MS / 1000, "it goes on by itself")
    context.close()


def key_of(stack: Stack, call: str) -> str:
    return str(ask(stack, "GET", f"/api/calls/{call}").body["key_id"])


def upstream_port(stack: Stack) -> int:
    text = (stack.workspace / "acme.yaml").read_text()
    return int(text.split("url: http://127.0.0.1:")[1].split("/")[0])
