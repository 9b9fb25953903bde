"""The console in a real Chromium, on `groundplan up --demo`: what visitors see, do, and must not be able to do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.acceptance.stack import Stack, request, wait_until

from groundplan.testing.browser import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

ROOT = Path(__file__).parents[2]
ENTRIES = ("/", "/workloads", "/calls", "/placement", "/knowledge", "/cost", "/operations", "/governance")
PAGES = (
    *ENTRIES, "/workloads/staff-assistant", "/workloads/finance-analytics", "/workloads/line-inspector", "/inbox",
    "/blueprints", "/blueprints/1", "/kill", "/demo/two-people",
    "/playground", "/knowledge/documents", "/knowledge/findings", "/knowledge/search", "/knowledge/glossary",
    "/knowledge/evaluations", "/governance/risk", "/keys",
)  # fmt: skip
UNNAMED = """[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a, [role=img]')]
  .filter(one => !(one.labels && one.labels.length) && !one.getAttribute('aria-label') && !one.textContent.trim())
  .map(one => one.outerHTML)"""
"""Controls and pictures that a screen reader could not name."""
FITS = "document.documentElement.scrollWidth <= window.innerWidth"
CUT = """[...document.querySelectorAll('.scroll:not(.chart)')].filter(one => one.scrollWidth > one.clientWidth)
  .map(one => one.innerText)"""
"""Tables of which a part is only seen by whoever moves them."""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (1280, 400)
HOSTILE = '"\'><img src=x onerror="window.hit=1"><script>window.hit=1</script>'

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("demo"), ROOT / "examples" / "company", options=("--demo",))
    try:
        stack.start(240)
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def cookie(demo: Stack, browser: Browser) -> Any:
    """The state of a browser that signed in with a one-time link."""
    link = demo.cli("login")["url"]
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    assert page.url == f"http://localhost:{demo.control_port}/"
    wait_until(lambda: page.goto(page.url) and page.locator("svg.plan").count(), 60, "the ground plan is drawn")
    state = context.storage_state()
    page.goto(link)
    assert page.locator("[role=alert]").count() == 1 and "groundplan login" in page.inner_text("main")
    context.close()
    return state


@pytest.fixture(scope="module")
def tab(demo: Stack, browser: Browser, cookie: Any) -> Iterator[Page]:
    """What signed in. A page of one test is left for that of the next one: to start what shows it takes longer than to
    show it."""
    context = browser.new_context(base_url=f"http://localhost:{demo.control_port}", storage_state=cookie)
    found = context.new_page()
    found.set_default_timeout(60_000)
    yield found
    context.close()


@pytest.fixture
def page(demo: Stack, tab: Page) -> Iterator[Page]:
    """A signed-in page that fails the test for any script error and any request to somebody else."""
    trouble: list[str] = []

    def heed_error(error: Any) -> None:
        trouble.append(str(error))

    def heed_request(sent: Any) -> None:
        if not _own(demo, sent.url):
            trouble.append(sent.url)

    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.on("pageerror", heed_error)
    tab.on("request", heed_request)
    yield tab
    tab.goto("about:blank")
    tab.remove_listener("pageerror", heed_error)
    tab.remove_listener("request", heed_request)
    assert trouble == []


def _heard(page: Page) -> list[str]:
    """What the browser's console says about a page from now on."""
    told: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        told.append(message.text)

    page.on("console", hear)
    return told


def _own(demo: Stack, url: str) -> bool:
    return url.startswith((f"http://localhost:{demo.control_port}/", "data:", "about:"))


def reload_until(page: Page, check: Callable[[], object], seconds: float, what: str) -> None:
    """Load the page again until `check` holds; twice a second, as to draw it is most of what a machine does then."""

    def look() -> object:
        page.reload()
        found = check()
        if not found:
            page.wait_for_timeout(500)
        return found

    wait_until(look, seconds, what)


def press(page: Page, selector: str) -> None:
    """Click what leads to another page, and wait for that page."""
    with page.expect_navigation():
        page.click(selector)


_SEARCH = "/knowledge/search?workload=staff-assistant&q=What+is+the+daily+allowance+for+meals%3F"


def _document(page: Page) -> str:
    """The page of one."""
    page.goto("/knowledge/documents?text=2021")
    return str(page.locator("tbody a").first.get_attribute("href"))


def act(page: Page, name: str) -> None:
    page.goto("/")
    press(page, f'form[action="/do/demo/{name}"] button')


@pytest.mark.parametrize("path", [*PAGES, "/calls/01a212d3-0000-7000-8000-000000000000", "/live/plan"])
def test_without_a_session_every_page_says_how_to_sign_in_and_nothing_else(demo: Stack, path: str) -> None:
    answer = request(demo.control_port, "GET", path)
    assert answer.status == 401
    if path != "/live/plan":
        assert b"groundplan login" in answer.body
    beside_its_own_path = answer.body.replace(path.encode(), b"")
    assert b"staff-assistant" not in beside_its_own_path and b"acme" not in beside_its_own_path


def test_every_page_fits_windows_of_any_width_in_light_and_dark(demo: Stack, browser: Browser, cookie: Any) -> None:
    """No script and no answer depends on width or scheme, so each page is loaded once."""
    context = browser.new_context(base_url=f"http://localhost:{demo.control_port}", storage_state=cookie)
    shown = context.new_page()
    shown.set_default_timeout(90_000)  # the first look at Placement solves it
    told = _heard(shown)
    for path in PAGES:
        answer = shown.goto(path)
        assert answer is not None and answer.status == 200, path
        assert shown.locator("h1").count() == 1, path
        for width, scheme in product(WIDTHS, SCHEMES):
            shown.set_viewport_size({"width": width, "height": 800})
            shown.emulate_media(color_scheme=scheme)
            assert shown.evaluate("innerWidth") == width
            assert shown.evaluate(FITS), f"{path} at {width}, {scheme}"
            assert shown.evaluate(UNNAMED) == [], path
            assert shown.evaluate(CUT) == [], f"{path} at {width}"
    assert told == []
    context.close()


def test_the_plan_shows_the_company_and_says_why_not(page: Page) -> None:
    page.goto("/")
    plan = page.locator("svg.plan")
    assert plan.locator("a.tile").count() == 3
    assert "2 changes wait" in page.inner_text("main")
    tile = plan.locator("a.tile", has_text="staff-assistant")
    tile.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/?workload=staff-assistant")
    assert "outside EU" in page.locator("svg.plan").inner_html()
    assert page.locator("svg.plan .room.dim").count() >= 1
    page.set_viewport_size({"width": 400, "height": 800})
    assert not page.locator("svg.plan").is_visible()
    assert "staff-assistant does not run here: outside EU" in page.inner_text(".by-site")


def test_the_first_tab_skips_to_the_content(page: Page) -> None:
    page.goto("/workloads")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"


def test_without_scripts_everything_is_there(demo: Stack, browser: Browser, cookie: Any) -> None:
    context = browser.new_context(
        base_url=f"http://localhost:{demo.control_port}", storage_state=cookie, java_script_enabled=False
    )
    still = context.new_page()
    still.goto("/")
    assert still.locator("svg.plan a.tile").count() == 3
    press(still, 'form[action="/do/demo/tamper"] button')
    assert "the entry was altered" in still.inner_text("main").lower()
    context.close()


def test_an_outage_swings_the_line_while_one_watches_and_no_call_fails(page: Page) -> None:
    page.goto("/")
    page.locator("svg.plan .line.primary").first.wait_for(state="attached")
    act(page, "cloud-down")
    page.locator("svg.plan .line.swung").first.wait_for(state="attached", timeout=60_000)
    page.locator("svg.plan .room-down").first.wait_for(state="attached")
    assert page.locator("svg.plan .room-down").count() == 1
    page.wait_for_timeout(2_000)
    act(page, "cloud-up")
    page.locator("svg.plan .line.swung").first.wait_for(state="detached", timeout=60_000)
    page.goto("/calls?workload=staff-assistant&status=failed")
    assert "No call matches" in page.inner_text("main")


def test_one_question_two_people_and_what_a_revocation_changes(page: Page) -> None:
    act(page, "ask-as")
    ben, hana = page.locator(".person").all()
    assert "salary-bands.md" in hana.inner_text() and "EUR a year" in hana.inner_text()
    assert "salary-bands.md" not in ben.inner_text() and "EUR a year" not in ben.inner_text()
    press(page, 'form[action="/do/demo/revoke-hr"] button')
    assert "salary-bands.md" not in page.inner_text("main")
    press(page, 'form[action="/do/demo/restore-hr"] button')
    assert "salary-bands.md" in page.inner_text("main")


def test_the_playground_shows_why_it_went_there_and_what_it_rests_on(page: Page) -> None:
    page.goto("/")
    page.select_option("select[name=person]", "raj@acme.example")
    press(page, "button:text-is('Act')")
    page.goto("/playground")
    page.select_option("select[name=workload]", "staff-assistant")
    page.fill("textarea", "How many days a week may I work from home?")
    press(page, "button.primary")
    panel = page.locator("section.panel")
    assert re.search(r"answered at .*\$.*\d+\s+attempts?", panel.locator(".facts").inner_text(), re.DOTALL)
    assert "gpt-eu" in panel.locator("p.why").first.inner_text()
    passage = panel.locator(".passage").first
    assert re.search(r"handbook/\S+\.md:\d+-\d+", passage.inner_text())
    assert passage.locator(".text").inner_text().strip()
    assert "None: the workload has no sources" not in panel.inner_text()
    press(page, ".who button")


def test_a_race_serves_what_the_budget_pays_for(page: Page) -> None:
    all_served = 0
    for _ in range(8):
        act(page, "budget-race")
        calls, served, refused = map(int, page.locator(".facts b").all_inner_texts()[:3])
        all_served += served
        assert calls == 200 and all_served <= 100
        if served + refused == calls:  # else a busy PostgreSQL did not say in time what is left
            break
    assert all_served == 100 and served + refused == 200


def test_tampering_is_named_and_rolling_back_makes_the_next_number(page: Page) -> None:
    act(page, "tamper")
    assert "the entry was altered" in page.inner_text("main").lower()
    press(page, "text=it verifies")
    assert "verified" in page.inner_text("main")
    act(page, "rollback")
    told = page.inner_text("main")
    number = int(re.findall(r"Blueprint (\d+) has the content", told)[0])
    assert f"Blueprint {number}" in page.inner_text(".tools"), "the top of the page names what is served now"
    press(page, "text=See what changed")
    assert f"Blueprint {number}" in page.inner_text("h1")
    page.goto("/do/demo/rollback")
    assert page.locator("#break-it").count(), "the address of an act shows the plan, where it is done again"


def test_a_receipt_has_six_steps_the_money_and_a_proof_that_opens(page: Page) -> None:
    act(page, "ask-as")
    page.goto(str(page.locator("a:text-is('Receipt')").last.get_attribute("href")))
    reload_until(page, lambda: page.locator(".steps").count(), 60, "the call is in the ledger")
    assert page.locator(".steps b").all_inner_texts() == ["identify", "admit", "cache", "ground", "serve", "settle"]
    text = page.inner_text("main")
    assert "Reserved before it was sent" in text and "→ settled" in text and re.search(r"\.md:\d+-\d+", text)
    reload_until(page, lambda: page.locator("#proof + p a").count(), 60, "the call has its leaf")
    press(page, "#proof + p a >> nth=0")
    assert "Proof of inclusion" in page.inner_text("main")


def _first_call(page: Page) -> str | None:
    links = page.locator("td a[href^='/calls/0']")
    return links.first.get_attribute("href") if links.count() else None


def test_a_page_that_does_not_exist_is_told(page: Page) -> None:
    answer = page.goto("/nowhere")
    assert answer is not None and answer.status == 404 and "There is no page /nowhere" in page.inner_text("main")
    answer = page.goto("/blueprints/999")
    assert answer is not None and answer.status == 404 and "There is no blueprint 999." in page.inner_text("main")


def test_calls_are_filtered_and_paged(page: Page) -> None:
    page.goto("/calls")
    page.select_option("select[name=status]", "refused")
    press(page, "text=Show")
    assert "status=refused" in page.url
    page.goto("/calls?workload=staff-assistant")
    reload_until(page, lambda: page.locator("text=Older calls").count(), 200, "more than one page of calls")
    first = _first_call(page)
    press(page, "text=Older calls")
    assert _first_call(page) != first and page.locator("text=Newest").count()


def test_what_people_wrote_is_text_and_never_runs(page: Page) -> None:
    page.goto("/kill")
    page.select_option("select[name=scope]", "workload/budget-check")
    page.fill("input[name=reason]", HOSTILE)
    press(page, "text=Stop it now")
    assert HOSTILE in page.inner_text("main")
    assert "workload/budget-check is stopped at the gateway." in page.inner_text("[role=status]")
    for path in ("/kill", "/inbox", "/governance", f"/calls?person={HOSTILE}", f"/?notice={HOSTILE}"):
        page.goto(path)
        assert page.evaluate("window.hit") is None, path
        assert page.locator("main img").count() == 0, path
    page.goto("/demo/two-people")
    page.fill("#question", HOSTILE)
    press(page, "text=Ask as both")
    assert page.input_value("#question") == HOSTILE
    assert page.evaluate("window.hit") is None
    page.goto("/kill")
    press(page, "button:text-is('Lift')")
    assert "Nothing is stopped" in page.inner_text("main")


def test_a_form_without_the_sessions_token_does_nothing(demo: Stack, page: Page) -> None:
    page.goto("/kill")
    page.select_option("select[name=scope]", "company")
    page.eval_on_selector_all("input[name=csrf]", "all => all.forEach(one => { one.value = 'forged'; })")
    page.fill("input[name=reason]", "forged")
    press(page, "text=Stop it now")
    assert page.locator(".notice-problem").count() == 1
    assert demo.cli("status")["kills"] == []


def test_acting_as_somebody_is_shown_and_carries_their_duties(page: Page) -> None:
    page.goto("/")
    page.select_option("select[name=person]", "lena@acme.example")
    press(page, "button:text-is('Act')")
    assert "Lena" in page.inner_text(".who")
    page.goto("/governance")
    page.locator(".panel", has_text="support-assistant").locator("text=Approve").first.wait_for()
    press(page, ".panel:has-text('support-assistant') >> text=Approve")
    assert "approved as business by Lena Fischer" in page.inner_text("main")
    approved = page.locator("tr", has_text="change.approved").first
    assert "you as Lena Fischer" in approved.inner_text() and "demo" in approved.inner_text()
    press(page, ".who button")
    assert "operator" in page.inner_text(".who") and not page.locator(".who button").count()


def test_what_was_done_while_acting_says_so_everywhere(demo: Stack, page: Page) -> None:
    page.goto("/")
    page.select_option("select[name=person]", "sam@acme.example")
    press(page, "button:text-is('Act')")
    page.goto("/kill")
    page.select_option("select[name=scope]", "workload/budget-check")
    page.fill("input[name=reason]", "while acting")
    press(page, "text=Stop it now")
    press(page, "button:text-is('Lift')")
    press(page, ".who button")
    page.goto("/governance")
    lifted = page.locator("tr", has_text="kill.lifted").first
    assert "you as Sam Berg" in lifted.inner_text()
    reload_until(page, lambda: lifted.locator("a").count(), 60, "the entry has its place")
    press(page, "tr:has-text('kill.lifted') a")
    assert "kill.lifted by you as Sam Berg" in page.inner_text("main")
    listed = demo.cli("audit", "list", "--action", "kill.lifted")["entries"]
    assert next(one for one in listed if one["action"] == "kill.lifted")["who"] == "you as Sam Berg"
    act(page, "ask-as")
    page.goto(str(page.locator("a:text-is('Receipt')").first.get_attribute("href")))
    reload_until(page, lambda: page.locator(".steps").count(), 60, "the call is in the ledger")
    assert "for you as " in page.inner_text(".lead")


def test_the_log_is_verified_again_when_asked(page: Page) -> None:
    page.goto("/governance")
    reload_until(page, lambda: page.locator("text=Verify everything again").count(), 60, "it was verified")
    before = re.findall(r"all files (.*?) in", page.inner_text("main"))
    page.wait_for_timeout(1100)
    press(page, "text=Verify everything again")
    assert "The whole log is being verified" in page.inner_text("[role=status]")
    reload_until(
        page,
        lambda: re.findall(r"all files (.*?) in", page.inner_text("main")) not in ([], before),
        60,
        "everything was verified again",
    )
    assert page.locator(".badge-ok:text-is('verified')").count() == 1


def test_a_document_says_what_holds_and_search_what_is_kept_back(page: Page) -> None:
    page.goto("/knowledge/documents?text=2021")
    press(page, "tbody a >> nth=0")
    main = page.inner_text("main")
    assert "A newer version exists: Travel and expenses." in main
    assert "source/handbook" in main
    page.fill("input[name=person]", "ben@acme.example")
    press(page, "form:has(input[name=person]) button")
    assert "may read it as everyone" in page.inner_text("main")
    page.goto("/")
    page.select_option("select[name=person]", "ben@acme.example")
    press(page, "form[action='/do/act-as'] button")
    try:
        page.goto(_SEARCH)
        main = page.inner_text("main")
        assert "52 EUR" in main
        assert "41 EUR" not in main
        assert "it has a newer version" in main
        offered = page.locator("select[name=workload] option").all_inner_texts()
        assert "staff-assistant" in offered and "budget-check" not in offered, "it has no sources"
        told = page.locator(".passage").first.inner_text()
        assert re.search(r"score \d\.\d{4}.*: contains daily, allowance, meals; similarity 0\.\d{4}", told), told
        found = page.url
        call = "019ac3a0-0000-7000-8000-000000000001"
        page.goto(f"{found}&call={call}")
        assert page.locator(".passage input[name=call]").first.input_value() == call
        assert f"/calls/{call}" in page.inner_html("main")
        page.goto(found)
        page.eval_on_selector_all("input[name=csrf]", "all => all.forEach(one => { one.value = 'forged'; })")
        press(page, ".passage button.link >> nth=0")
        page.goto(found)
        press(page, ".passage button.link >> nth=0")
        assert "/knowledge/documents/" in page.url
        assert "As everyone." in page.inner_text("main") and "Its owner is fay@acme.example." in page.inner_text("main")
        assert page.locator("h1 .badge-ok:text-is('approved')").count() == 1
        page.goto(found)
        press(page, "a:text-is('Travel and expenses (2021)')")
        assert page.locator("h1 .badge:text-is('superseded')").count() == 1
        assert "A newer version exists: Travel and expenses." in page.inner_text("main")
        answer = page.goto("/do/knowledge/click")
        assert answer is not None and answer.status == 200
        assert answer.url.count("/") == 3, "no link from elsewhere chooses a document: it leads to the first page"
    finally:
        page.goto("/")
        press(page, "form[action='/do/act-as'] button")
    page.goto("/knowledge/evaluations")
    chosen = page.locator("td[data-label=Opened]").all_inner_texts()
    assert sum(map(int, chosen)) == 1, "once: a forged form chooses nothing"


def test_knowledge_says_who_owns_it_how_well_it_is_kept_and_who_used_it(page: Page) -> None:
    page.goto("/knowledge")
    handbook = page.locator("tr:has(a:text-is('handbook'))")
    assert handbook.locator("td[data-label=Health] .badge-ok").count() == 1
    assert handbook.locator("td[data-label=Owner]").inner_text().split() == [
        "dana@acme.example", "steward", "maria@acme.example",
    ]  # fmt: skip
    reload_until(page, lambda: handbook.locator("td[data-label=Quality] .bar").count(), 60, "it is scored")
    page.goto("/knowledge/findings?kind=knowledge.duplicate")
    (copied,) = page.locator("tbody tr").all_inner_texts()
    assert "remote-work-copy.md" in copied and "maria@acme.example" in copied and "Delete it" in copied
    page.goto("/knowledge/glossary")
    assert "home office, telecommuting" in page.locator("tr:has-text('remote work')").inner_text()
    act(page, "ask-as")
    page.goto("/knowledge/documents?source=hr-policies&text=salary")
    press(page, "tbody a >> nth=0")
    used = page.locator("h2:has-text('Answers that used it') + .scroll")
    reload_until(page, lambda: used.count(), 60, "the answer is in the ledger")
    assert "staff-assistant" in used.inner_text() and "hana@acme.example" in used.inner_text()
    parts = [one.inner_text() for one in page.locator("main h2").all()]
    assert {"Effective properties", "Findings", "Versions", "Quality", "Who may read it", "Decide"} <= set(parts)
    assert page.locator("h2:has-text('Quality') + p .bar").count() == 1
    assert "source/hr-policies" in page.locator("tr:has-text('owner') td[data-label=From]").first.inner_text()


def test_labelled_questions_are_measured_drawn_and_kept(demo: Stack, page: Page, tmp_path: Path) -> None:
    """Also where the passage that answers stands in two documents, and is quoted from the other one."""
    file, asks = tmp_path / "questions.jsonl", {"person": "ben@acme.example", "workload": "staff-assistant"}
    labelled = (
        {"question": "How many days a week may I work remotely?", "documents": ["handbook/remote-work-copy.md"]},
        {"question": "What is the daily allowance for meals?", "documents": ["handbook/travel-expenses.md", "gone.md"]},
    )
    file.write_text("".join(json.dumps({**one, **asks}) + "\n" for one in labelled))
    runs = [demo.cli("knowledge", "evaluate", str(file)) for _ in range(2)]
    assert [run["recall@100"] for run in runs] == [0.75, 0.75] and runs[0]["last"] == {}
    assert runs[0]["not_there"] == ["gone.md"], "a misspelt name is told, not only missed"
    assert runs[1]["last"]["ndcg@10"] == 0
    page.goto("/knowledge/evaluations")
    assert page.locator("[role=img] svg:visible").count() == 2
    assert page.locator("tbody tr:has-text('questions questions.jsonl') svg.trend").count() == 2
    for path in ("/knowledge/evaluations", _SEARCH, _document(page)):
        page.set_viewport_size({"width": 400, "height": 800})
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
    file.write_text("\n" + json.dumps({**labelled[0], **asks, "person": "nobody@acme.example"}) + "\n")
    refused = demo.cli("knowledge", "evaluate", str(file), code=65)["error"]
    assert refused["message"] == f"{file}:2: nobody has the address nobody@acme.example"


def test_somebody_without_a_duty_sees_the_plan_and_their_own_calls_and_is_told_about_the_rest(page: Page) -> None:
    page.goto("/")
    page.select_option("select[name=person]", "ben@acme.example")
    press(page, "form[action='/do/act-as'] button")
    try:
        for path in ("/", "/workloads", "/workloads/staff-assistant", "/calls"):
            answer = page.goto(path)
            assert answer is not None and answer.status == 200, path
        answer = page.goto("/knowledge")
        assert answer is not None and answer.status == 200 and page.url.endswith("/knowledge/search")
        for path in ("/governance", "/cost"):
            answer = page.goto(path)
            assert answer is not None and answer.status == 403, path
            assert "You hold no duty here" in page.inner_text("main")
            offered = page.locator("nav.entries a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
            assert offered == ["/", "/workloads", "/calls", "/knowledge", "/operations"]
    finally:
        page.goto("/")
        press(page, "form[action='/do/act-as'] button")
    assert "operator" in page.inner_text(".who")
