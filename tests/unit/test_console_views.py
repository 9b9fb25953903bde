"""What pages make of the API's answers: exact money, six steps, honest marks, and nothing lets a script through."""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st

from groundplan import console
from groundplan.api import errors
from groundplan.console import charts, cost_figures, keys, receipt
from groundplan.console.client import Api, Reply
from groundplan.console.overview import marks, plan_view
from groundplan.console.pages import live_operations
from groundplan.console.pagination import ListPage
from groundplan.console.plan_svg import AREAS, PlanView, RoomView, ground_plan
from groundplan.console.render import (
    RespondWith,
    Visitor,
    current_visitor,
    escape_direction_marks,
    fetch_json,
    format_amount,
    format_milliseconds,
    format_time,
    item_page_path,
    render,
    render_code,
    templates,
)
from groundplan.core.words import format_period

CALL: dict[str, Any] = {
    "status": "ok", "error_code": None, "person": "ben@acme.example", "who": "Ben Okafor", "blueprint": 3,
    "cache": "none", "passages": [{"path": "a.md"}], "attempts": [{"number": 0}, {"number": 1}], "deployment": "llama",
    "prompt_tokens": 200, "completion_tokens": 20, "duration_ms": 9.0, "reserved_usd": "0.003000000000",
    "cost_usd": "0.000300000000", "key_id": "k", "tool": None,
    "steps": [{"step": "identify", "ms": 0.1}, {"step": "cache", "ms": 0.2}, {"step": "admit", "ms": 0.4},
              {"step": "ground", "ms": 5.4}, {"step": "cache", "ms": 5.5}, {"step": "serve", "ms": 8.0},
              {"step": "settle", "ms": 9.0}],
}  # fmt: skip
CALM = {"down": False, "failing": [], "used": True}
SITES = [
    {"name": "cloud", "title": "Cloud", "type": "cloud", "jurisdiction": "EU", **CALM},
    {"name": "rack", "title": "Rack", "type": "private", "jurisdiction": "EU", **CALM},
    {"name": "line", "title": "Line", "type": "edge", "jurisdiction": "EU", **CALM, "used": False},
]


def drawn(*workloads: dict[str, Any], chosen: str | None = None, **more: Any) -> PlanView:
    return plan_view({"workloads": workloads, "sites": SITES, "more": {}, "calls_per_minute": 0.0, **more}, chosen)


def workload(**more: Any) -> dict[str, Any]:
    return {
        "name": "helper", "stage": "pilot", "site": "cloud", "fallback_sites": ["cloud", "rack"],
        "serving_site": "cloud", "cost_today_usd": "0.020000000000", "p95_ms": 80.0, "calls_per_minute": 30.0,
        "readiness": {"cost": 0.5, "placement": None}, "why_not": {}, **more,
    }  # fmt: skip


def test_six_steps_in_order_with_the_time_each_took() -> None:
    steps = receipt.steps(CALL)
    assert [step.name for step in steps] == ["identify", "admit", "cache", "ground", "serve", "settle"]
    assert [None if step.ms is None else round(step.ms, 3) for step in steps] == [0.1, 0.2, 0.2, 5.0, 2.5, 1.0]
    assert [step.told for step in steps][3:] == ["1 passage", "llama, attempt 2", "200 + 20 tokens"]
    assert receipt.share_used(CALL) == pytest.approx(0.1)


def test_a_refused_call_stops_at_the_step_that_refused_it() -> None:
    refused = {
        **CALL, "status": "refused", "error_code": "budget_exhausted", "passages": [], "attempts": [],
        "reserved_usd": "0.000000000000", "cost_usd": "0.000000000000", "steps": CALL["steps"][:2],
    }  # fmt: skip
    steps = receipt.steps(refused)
    assert [step.reached for step in steps] == [True, True, True, False, False, False]
    assert steps[1].told == "refused: budget_exhausted" and steps[5].told == "nothing to settle"
    assert receipt.share_used(refused) == 0.0


@pytest.mark.parametrize(
    ("status", "key", "tool", "reached", "told"),
    [
        ("refused", "k", "crm/delete", ["identify", "admit"], "refused: approval_required"),
        ("refused", "k", None, ["identify", "admit"], "refused: approval_required"),
        ("refused", None, None, ["identify"], "the caller's"),
        ("ok", "k", "crm/delete", ["identify", "admit", "serve", "settle"], "blueprint 3"),
    ],
)
def test_what_writes_no_step_down_is_refused_where_it_was(
    status: str, key: str | None, tool: str | None, reached: list[str], told: str
) -> None:
    """Uses of tools and conversations: their key was known, and no model answers for a tool."""
    steps = [{"step": f"tool {tool}", "ms": 1.0}] if tool else []
    steps += [{"step": "settle", "ms": 1.1}] if status == "ok" else []
    code = "approval_required" if status == "refused" else None
    more = {"key_id": key, "tool": tool, "status": status, "error_code": code, "attempts": [], "steps": steps}
    shown = receipt.steps({**CALL, **more})
    assert [step.name for step in shown if step.reached] == reached
    assert key is None or shown[1].told == told
    assert tool is None or shown[4].told == tool


@pytest.mark.parametrize("how", ["exact", "semantic", "replay"])
def test_a_call_that_was_answered_from_memory_was_admitted(how: str) -> None:
    """Its gateway writes down one time for both."""
    steps = [*CALL["steps"][:2], {"step": "cache", "ms": 0.5}, {"step": "settle", "ms": 0.6}]
    for passages, grounded in (([], False), (CALL["passages"], True)):
        shown = receipt.steps({**CALL, "cache": how, "attempts": [], "passages": passages, "steps": steps})
        assert [step.reached for step in shown] == [True, True, True, grounded, False, True]


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({}, "no tokens"),
        ({"input": 7, "output": 2, "reasoning": 1}, "7 input, 2 output, 1 reasoning tokens"),
        ({"input": 1, "details": {"input_text": 1}, "service_tier": "flex"}, "1 input, 1 input text tokens"),
        ({"seconds": 37}, "37 seconds of audio"),
        (
            {"input": 3, "images_made": 1, "details": {"searches": 2}},
            "3 input tokens; 1 image made; 2 searches of the web",
        ),
    ],
)
def test_what_an_attempt_used_is_told_in_words(usage: dict[str, Any], told: str) -> None:
    assert receipt.usage_text(usage) == told


AMOUNT = st.decimals(min_value=0, max_value=1000, places=12)
DAY = st.sampled_from(["2026-10-31", "2026-11-01", "2026-11-24", "2026-11-25"])


@given(st.lists(st.tuples(DAY, st.sampled_from(["a", "b", "c"]), AMOUNT, st.integers(0, 50)), max_size=12))
def test_costs_of_today_and_the_month_are_exact(found: list[tuple[str, str, Decimal, int]]) -> None:
    days = [{"day": d, "workload": w, "cost_usd": f"{amount:.12f}", "calls": n} for d, w, amount, n in found]
    total = cost_figures.total_row(cost_figures.daily_rows(days, "2026-11-25"))
    month = [row for row in found if row[0].startswith("2026-11")]
    assert Decimal(total.month_usd) == sum((row[2] for row in month), Decimal(0))
    assert Decimal(total.today_usd) == sum((row[2] for row in month if row[0] == "2026-11-25"), Decimal(0))
    assert total.calls_month == sum(row[3] for row in month)


@pytest.mark.parametrize(
    ("limit", "spent", "left", "used"),
    [("10", "2.5", "7.500000000000", 0.25), ("1", "1", "0.000000000000", 1.0), ("0", "0", "0.000000000000", 1.0)],
)
def test_what_is_left_of_a_budget(limit: str, spent: str, left: str, used: float) -> None:
    view = cost_figures.budget_view({"budget": "b", "period": "2026-11", "limit_usd": limit, "spent_usd": spent})
    assert (view.left_usd, view.used) == (left, used)


def test_marks_are_none_where_nothing_is_proven() -> None:
    assert marks(workload()) == tuple((area, 0.5 if area == "cost" else None) for area in AREAS)
    assert marks({"name": "new"}) == tuple((area, None) for area in AREAS)


def test_a_fallback_at_another_site_is_drawn_also_behind_one_at_the_same_site() -> None:
    calm = ground_plan(drawn(workload()))
    assert 'class="line fallback"' in calm and 'class="line primary"' in calm
    sites = [{**SITES[0], "down": True}, *SITES[1:]]
    moved = ground_plan(drawn(workload(serving_site="rack"), sites=sites))
    assert 'class="line swung"' in moved and "room-down" in moved and 'class="line broken"' in moved


def test_an_answer_from_elsewhere_breaks_no_line_to_a_primary_that_answers() -> None:
    hedged = ground_plan(drawn(workload(serving_site="rack")))
    assert 'class="line swung"' in hedged and 'class="line primary"' in hedged
    assert "room-down" not in hedged and 'class="line broken"' not in hedged


@pytest.mark.parametrize(("failing", "note"), [(["gpt-dead"], "gpt-dead fails"), (["a", "b"], "2 deployments fail")])
def test_a_room_names_what_fails_there_without_being_down(failing: list[str], note: str) -> None:
    sites = [{**SITES[0], "failing": failing}, *SITES[1:]]
    view = drawn(workload(failing=failing, site_failing=True), workload(name="other"), sites=sites)
    plan = ground_plan(view)
    assert f">{note}</text>" in plan and "room-failing" in plan and "room-down" not in plan
    assert plan.count('class="line broken"') == 1 and f"Cloud: {note}" in plan
    listed = bytes(render("plan_part.html", svg="", view=view).body).decode()
    assert note in listed and ">down<" not in listed


def test_a_long_name_leaves_room_for_the_stage() -> None:
    plan = ground_plan(drawn(workload(name="n" * 63, stage="experiment")))
    name = re.search(r'class="name"[^>]*>(n+…)<', plan)
    assert name is not None and len(name[1]) <= 18


@pytest.mark.parametrize(("letter", "most"), [("R", 21), ("室", 14), ("i", 28)])
def test_a_title_in_wide_letters_stays_in_its_room(letter: str, most: int) -> None:
    room = RoomView("rack", letter * 60, "private", "EU", "ok", "", 0)
    name = re.search(rf'class="name"[^>]*>({letter}+…)<', ground_plan(PlanView((room,), (), None, 0, 0.0)))
    assert name is not None and most - 3 <= len(name[1]) <= most


def test_a_room_says_how_many_more_there_are() -> None:
    view = drawn(workload(), more={"cloud": 97, "": 3}, calls_per_minute=61.0)
    assert {room.name: room.state for room in view.rooms} == {"cloud": "ok", "rack": "ok", "line": "not_yet"}
    plan = ground_plan(view)
    assert "/workloads?site=cloud" in plan and ">97 more<" in plan and "101 workloads" in plan
    assert "61 calls a minute" in plan and plan.count("more</text>") == 1
    listed = bytes(render("plan_part.html", svg="", view=view).body)
    assert listed.count(b">97 more<") == 1, "on a telephone there is the list alone"


def test_numbers_and_times_for_people() -> None:
    assert format_amount("0.002140000000") == "$0.00214" and format_amount(None) == "–"
    assert (format_amount("0.999862"), format_amount("-0.9995"), format_amount("0.9994")) == (
        "$1.00",
        "-$1.00",
        "$0.999",
    ), "never as if a thousand"
    year = datetime.now(UTC).year
    assert format_time(f"{year}-11-25T13:05:07.120+01:00") == "25 Nov 12:05:07" and format_time(None) == "–"
    assert format_time(f"{year + 1}-11-25T13:05:07.120+01:00") == f"25 Nov {year + 1} 12:05:07", (
        "content is kept for years"
    )
    times = (None, 0.0, 0.05, 9.9, 54.0, 4510.0)
    assert [format_milliseconds(each) for each in times] == ["–", "0 µs", "50 µs", "9.9 ms", "54 ms", "4.51 s"]
    assert (format_period("2026-11"), format_period("2026-11-25"), format_period("total")) == (
        "November 2026",
        "25 Nov 2026",
        "total",
    )
    assert format_period("2026-11-23..2026-11-30") == "23 Nov 2026 to 29 Nov 2026", (
        "the last day of it, not the one after"
    )
    assert format_period("2026-11-01T02:30..2026-12-01T03:30") == "01 Nov 2026 02:30 to 01 Dec 2026 03:30 UTC"
    assert format_period("2026-03-14..2026-04-13T23:00") == "14 Mar 2026 00:00 to 13 Apr 2026 23:00 UTC", (
        "summer time began"
    )


def test_what_stands_in_backticks_is_code_and_nothing_else_is_markup() -> None:
    assert render_code("set `a<b` & go") == "set <code>a&lt;b</code> &amp; go"
    assert render_code("<b>") == "&lt;b&gt;" and render_code("") == ""


def test_what_people_wrote_is_escaped() -> None:
    text = render("error.html", problem="<script>alert(1)</script>").body
    assert b"<script>alert" not in text and b"&lt;script&gt;alert" in text
    hostile = workload(name='"><script>', why_not={"rack": "<script>"}, stage="<script>")
    sites = [{**SITES[0], "title": "<script>", "jurisdiction": "<script>"}, *SITES[1:]]
    assert "<script>" not in ground_plan(drawn(hostile, chosen='"><script>', sites=sites))


def test_a_chart_is_drawn_on_the_server_and_none_without_data() -> None:
    assert charts.cost_by_day([]) == ""
    drawn = charts.cost_by_day([{"day": "2026-11-25", "workload": "</text><script>", "cost_usd": "0.1"}])
    assert drawn.startswith("<svg") and "<script>" not in drawn and "http://www.w3.org" in drawn


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_colour_has_enough_contrast_on_every_ground(scheme: str) -> None:
    text = (Path(console.__file__).parent / "static" / "plan.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)
    )
    colours = {**light, **(dark if scheme == "dark" else {})}
    for ink in ("ink", "soft", "flow", "swing", "stop"):
        for ground in ("paper", "room", "tile"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"
    for line in ("wall", "flow", "swing", "stop"):
        assert contrast(colours[line], colours["paper"]) >= 3.0, f"{line} on paper"
    parts = re.findall(r"\.(?:spark|wf)-(?!track)\w+ \{ fill: var\(--(\w+)\)", text)
    for part in parts:
        for ground in ("grid", "room"):
            assert contrast(colours[part], colours[ground]) >= 3.0, f"{part} in a waterfall or a column of calls"
    assert len(parts) == 5


def test_pages_name_no_other_host_and_hold_no_script() -> None:
    for path in (Path(console.__file__).parent / "templates").glob("*.html"):
        text = path.read_text()
        assert not re.search(r"(src|href|action)=\"(https?:)?//", text), path.name
        assert "<script>" not in text and not re.search(r"\son\w+=", text), path.name


def test_what_was_unusual_is_marked_on_its_day() -> None:
    since = {"since": "2026-11-20T23:50:00+00:00"}
    anomalies: list[dict[str, Any]] = [
        {"at": "2026-11-21T00:10:00+00:00", "message": "twice the tokens", "detail": since},
        {"at": "2026-11-20T08:00:00+00:00", "message": "a new caller", "detail": {}},
        {"at": "2026-01-01T08:00:00+00:00", "message": "long ago", "detail": {}},
    ]
    found = cost_figures.anomaly_rows(anomalies)
    assert found[1] == {"day": "2026-11-20", "message": "twice the tokens a new caller"}
    days = [{"day": f"2026-11-{day}", "workload": "a", "cost_usd": "1.5"} for day in (19, 20, 21)]
    drawn = charts.cost_by_day(days, found)
    assert drawn.count("twice the tokens a new caller") == 1 and "long ago" not in drawn
    assert "twice" not in charts.cost_by_day(days) and charts.cost_by_day([], found) == ""


@pytest.mark.parametrize(
    ("item", "leads_to"),
    [
        ({"kind": "approval", "subject": "change/0191"}, "/governance/changes/0191"),
        ({"kind": "kill", "subject": "workload/helper"}, "/kill"),
        ({"kind": "cost.anomaly", "subject": "workload/a b", "detail": {}}, "/workloads/a%20b"),
        ({"kind": "knowledge.stale", "subject": "source/h/a", "detail": {"document": "4"}}, "/knowledge/documents/4"),
        ({"kind": "knowledge.reader_unknown", "subject": "source/h/reader:x", "detail": {}}, "/knowledge/findings"),
        ({"kind": "gateway.silent", "subject": "gateway/1"}, "/operations"),
        ({"kind": "governance.shadow_refuses", "subject": "policy/a", "detail": {}}, "/governance/rules"),
        ({"kind": "governance.prompt_changed", "subject": "prompt/a b"}, "/governance/prompts/a%20b"),
        ({"kind": "erasure", "subject": "erasure/0191"}, "/governance/erasures/0191"),
        ({"kind": "knowledge.index", "subject": "index/2"}, "/knowledge/index"),
        ({"kind": "exception", "subject": "company", "detail": {}}, ""),
        ({"kind": "x", "subject": "workload/../../kill?x=\"><script>", "detail": {}},
         "/workloads/..%2F..%2Fkill%3Fx%3D%22%3E%3Cscript%3E"),
    ],
)  # fmt: skip
def test_what_waits_leads_to_the_page_about_it(item: dict[str, Any], leads_to: str) -> None:
    assert item_page_path(item) == leads_to


def test_what_is_wholly_new_has_no_column_of_what_it_was() -> None:
    fields = vars(templates.get_template("change_part.html").module)["fields"]
    new = {"field": "readers", "old": None, "new": "finance, hr"}
    assert "From" not in fields([new]) and "finance, hr" in fields([new])
    both = fields([new, {"field": "stage", "old": "pilot", "new": None}])
    assert both.count('data-label="From"') == both.count('data-label="To"') == 2 and "pilot" in both
    assert "Nothing that is served." in fields([])


def test_each_cell_of_a_compared_bill_says_on_a_phone_what_it_is() -> None:
    template = templates.get_template("reconcile.html")
    row = {
        "kind": "bill_line_without_call", "amount_usd": "0.140000000000", "day": "2026-12-01", "model": "m", "note": "",
        "bill_usd": "0.14", "ledger_usd": "0", "calls": [], "calls_in_all": 0, "lines": [2],
    }  # fmt: skip
    explanation = {"kind": "demo", "amount_usd": "-0.50", "places": 4, "meaning": "traffic of the demo"}
    result = {
        "file": "bill.csv", "lines": 1, "format": "columns by their names", "from": "2026-12-01", "to": "2026-12-01",
        "attempts": 4036, "matched_by_id": 0, "complete": True, "bill_usd": "0.14", "ledger_usd": "0.50", "notes": [],
        "difference_usd": "-0.36", "explanations": [explanation], "rows": [row], "rows_left_out": 0, "beside": [],
        "left_out": {"attempts": 0, "amount_usd": "0"}, "columns": {"day": "date"},
    }  # fmt: skip
    shown = "".join(template.blocks["main"](template.new_context({"result": result})))
    assert "1 line, columns" in shown and "4,036 attempts of the ledger" in shown
    for table in re.findall(r"<table.*?</table>", shown, re.DOTALL):
        names = re.findall(r"<th[^>]*>([^<]+)</th>", table)
        told = re.findall(r'<td[^>]*data-label="([^"]+)"', table.partition("<tbody>")[2].partition("</tr>")[0])
        assert told == names[1:]


def test_how_calls_are_replayed_is_said_where_some_are_kept() -> None:
    template = templates.get_template("experiments.html")

    def shown(*, keeps: bool) -> str:
        choice = {"name": "helper", "keeps": keeps, "waits": "", "candidates": ["b"], "answers": "a", "stage": "pilot"}
        part = ListPage([choice], 1, "", None, None)
        common: dict[str, Any] = {
            "csrf": "x",
            "tab": "Experiments",
            "running": [],
            "waiting": [],
            "over": [],
            "replays": [],
        }
        common |= {"choices": part.rows, "part": part, "workload": ""}
        common |= vars(templates.get_template("parts.html").module)
        return "".join(template.blocks["main"](template.new_context(common)))

    assert "below, with" in shown(keeps=True) and "/do/replay-start" in shown(keeps=True)
    assert "below, with" not in shown(keeps=False) and "keep: {content: redacted}" in shown(keeps=False)


def test_a_name_that_turns_its_letters_round_shows_that_it_does() -> None:
    assert escape_direction_marks("in/\u202egnp.md") == "in/\\u202egnp.md"
    assert escape_direction_marks("Größe \u05e9\u05dc\u05d5\u05dd") == "Größe \u05e9\u05dc\u05d5\u05dd", (
        "what is written so by itself"
    )
    assert render_code("`a\u2066b` \u202ec") == "<code>a\\u2066b</code> \\u202ec"
    answer = render("error.html", problem="\u202egnp.md has no owner", code=404)
    assert "\\u202egnp.md has no owner" in bytes(answer.body).decode()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"message": "no such key", "hint": "List them."}, "no such key. List them."),
        ({"message": "Give a name.", "hint": "Any will do."}, "Give a name. Any will do."),
        ({"message": "no such key", "hint": ""}, "no such key"),
        ({}, "the API answered 500"),
        (
            {"message": "'x' is no id", "hint": "See /api", "problems": [{"hint": "Ids are long."}]},
            "'x' is no id. Ids are long.",
        ),
        ({"message": "wrong", "hint": "See /api", "problems": [{"hint": "a"}, {"hint": "b"}]}, "wrong. See /api"),
    ],
)
def test_what_went_wrong_and_what_to_do_are_two_sentences(error: dict[str, Any], told: str) -> None:
    assert Reply(500, {"error": error}, ()).problem == told


def test_what_is_named_in_a_path_arrives_as_it_is_called() -> None:
    """An e-mail address, of which the sign @ is encoded on the way."""
    seen: list[tuple[str, bytes]] = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["raw_path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    asyncio.run(Api(app, (), ("127.0.0.1", 1)).post("/api/people/ana%40acme.example/handover"))
    assert seen == [("/api/people/ana@acme.example/handover", b"/api/people/ana%40acme.example/handover")]


def test_what_the_api_did_not_expect_is_told_on_a_page_with_its_id() -> None:
    app = FastAPI()
    errors.install(app)

    @app.get("/api/register")
    def fail() -> None:
        raise RuntimeError("of a bug")

    visitor = Visitor(
        Api(app, (), ("127.0.0.1", 1)),
        {"name": "Ana", "acting": None, "demo": False, "duties": [], "operator": True},
        {},
    )
    with pytest.raises(RespondWith) as caught:
        asyncio.run(fetch_json(visitor, "/api/register"))
    text = bytes(caught.value.response.body).decode()
    assert caught.value.response.status_code == 500 and "<h1>This page cannot be shown</h1>" in text
    assert re.search(r"something unexpected happened\. Look for [0-9a-f-]{36} in HOME/logs", text)


@pytest.mark.parametrize("duties", [[], [{"subject": "company", "duty": "finance"}]])
def test_only_what_somebody_may_open_is_offered(duties: list[dict[str, str]]) -> None:
    session = {"duties": duties, "operator": False, "acting": False}
    text = bytes(render("error.html", problem="no", session=session, who="Bo").body).decode()
    for path in ("/", "/calls", "/workloads", "/knowledge", "/operations", "/inbox"):
        assert f'href="{path}"' in text, path
    for path in ("/placement", "/cost", "/governance", "/blueprints", "/kill"):
        assert (f'href="{path}"' in text) == bool(duties), path


@pytest.mark.parametrize(("status", "shown"), [(401, "Sign in"), (503, "the database rests")])
def test_who_cannot_be_known_now_is_not_asked_to_sign_in(status: int, shown: str) -> None:
    """A page that goes on by itself leaves for the sign-in with a 401 alone."""

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": {"message": "the database rests"}}'})

    scope = {"type": "http", "method": "GET", "app": app, "headers": [], "client": ("127.0.0.1", 1)}
    with pytest.raises(RespondWith) as caught:
        asyncio.run(current_visitor(Request(scope)))
    assert caught.value.response.status_code == status
    text = bytes(caught.value.response.body).decode()
    assert shown in text and ("passkey" in text) == (status == 401)


@pytest.mark.parametrize(
    ("path", "query", "opened"),
    [(b"/calls", b"workload=a&status=ok", "/calls?workload=a&amp;status=ok"), (b"/", b"", "/begin"),
     (b"/live/calls", b"", "/begin"), (b"//evil.example", b"", "/begin"), (b"/\\evil.example", b"", "/begin")],
)  # fmt: skip
def test_signing_in_leads_to_the_page_that_was_asked_for(path: bytes, query: bytes, opened: str) -> None:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body"})

    scope = {"type": "http", "method": "GET", "app": app, "headers": [], "raw_path": path, "query_string": query}
    with pytest.raises(RespondWith) as caught:
        asyncio.run(current_visitor(Request(scope)))
    assert f'data-next="{opened}"' in bytes(caught.value.response.body).decode()


@pytest.mark.parametrize(
    ("kept", "begins"), [("workload=a&tag=b", "/keys?workload=a&tag=b&notice="), ("", "/keys?notice=")]
)
def test_revoking_a_key_leads_back_to_the_filtered_list(kept: str, begins: str) -> None:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"others": []}'})

    request = Request({"type": "http", "method": "POST", "app": app, "headers": [], "client": ("127.0.0.1", 1)})
    answer = asyncio.run(keys.revoke(request, csrf="x", key="k", begins="gp_a", kept=kept))
    assert answer.status_code == 303 and answer.headers["location"].startswith(begins)


def test_health_that_cannot_be_read_now_is_no_error_of_the_page() -> None:
    """The session was read a moment before. What a page shows live stays until it is answered again."""

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": {"message": "the database rests"}}'})

    session: dict[str, Any] = {"name": "Ana", "acting": None, "demo": False, "duties": [], "operator": True}
    with pytest.raises(RespondWith) as caught:
        asyncio.run(live_operations(Visitor(Api(app, (), ("127.0.0.1", 1)), session, {})))
    assert caught.value.response.status_code == 503


def test_the_playground_shows_what_guardrails_found_and_an_answer_without_usage() -> None:
    hit = {"place": "input", "check": "personal_data", "done": "mask", "finds": 2, "shadow": False}
    facts = {
        "deployment": "gpt",
        "site": "here",
        "cost_usd": "0.1",
        "estimated": False,
        "cache": "none",
        "budget_remaining_usd": None,
        "sources": [],
        "guardrails": [hit, {**hit, "done": "flag", "shadow": True}],
    }
    result = {"status": 200, "answer": "Hi", "usage": {}, "attempts": 1, "why": [], "call_id": None, "facts": facts}
    session = {"duties": [], "operator": True, "acting": False}
    shown = render(
        "playground.html", here="/calls", session=session, who="Bo", names=["w"], result=result,
        asked={"workload": "w", "question": ""}, status={"addresses": {}},
    )  # fmt: skip
    assert "<b>–</b>tokens" in bytes(shown.body).decode(), "the upstream reports none"
    found = re.findall(r'badge-wait">(\w+)</span> ([^<]+)</li>', bytes(shown.body).decode())
    assert found == [
        ("masked", "personal data in the input, 2 finds"),
        ("flagged", "personal data in the input, 2 finds. In shadow: counted, and nothing changed"),
    ]


@pytest.mark.parametrize("sees_all", [True, False])
def test_the_playground_offers_a_form_to_whoever_may_ask(sees_all: bool) -> None:
    result = {
        "status": 503, "error": {"message": "nobody answers", "code": "upstream_failed", "hint": "Try `status`."},
        "call_id": None, "facts": {},
    }  # fmt: skip
    session = {"duties": [], "operator": sees_all, "acting": False}
    shown = render(
        "playground.html", here="/calls", session=session, sees_all=sees_all, who="Bo", names=["w"], result=result,
        asked={"workload": "w", "question": ""}, status={"addresses": {"public": "http://here/v1"}},
    )  # fmt: skip
    text = bytes(shown.body).decode()
    assert ("<form" in text) == sees_all and ("http://here/v1" in text) == (not sees_all)
    assert "No answer" in text and "<code>status</code>" in text and "as <bdi>Bo</bdi>:" in text


def test_pages_are_those_with_which_the_console_began_whatever_an_upgrade_has_put_in_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "{{ of_the_next_version }}")
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a template was looked for on the disk"))
    fresh = templates.overlay(cache_size=0)
    for name in fresh.list_templates():
        assert fresh.get_template(name) is not None
    assert "error.html" in fresh.list_templates()


@pytest.mark.parametrize(
    ("stage", "last", "says"),
    [
        ("pilot", "2020-01-31", "ended on 2020-01-31: "),
        ("pilot", datetime.now(UTC).date().isoformat(), "until "),
        ("production", "2020-01-31", "until "),
        ("pilot", None, ""),
    ],
)
def test_a_pilot_that_is_over_is_said_to_be(stage: str, last: str | None, says: str) -> None:
    """Gateways refuse its calls since; in production they look at no such day."""
    source = (Path(console.__file__).parent / "templates" / "workload.html").read_text()
    (line,) = [each for each in source.splitlines() if "</b>stage" in each]
    shown = templates.from_string(line).render(workload={"stage": stage, "expires": last})
    assert (says in shown) and ("its calls are refused" in shown) == says.startswith("ended")
    assert ("ended" in shown, "until" in shown) == ("ended" in says, "until" in says)


@pytest.mark.parametrize("who", ["operator", "holder", "other"])
def test_the_operator_may_refuse_what_waits_and_approve_nothing(who: str) -> None:
    need = {"duty": "security", "subject": "company", "mine": who == "holder", "people": ["Sam"]}
    change: dict[str, Any] = {
        "id": "c", "type": "workload", "state": "pending", "summary": {}, "needs": [need], "waits_for": [need],
        "approvals": [], "requested_by_name": "Ana", "requested_at": None, "base": 1, "blueprint": None, "reason": "",
        "digest": "0" * 64, "seats": 1, "expires_on": None, "grace_until": None,
    }  # fmt: skip
    panel = vars(templates.get_template("change_part.html").module)["panel"]
    session = {"operator": who == "operator", "demo": False, "email": None}
    shown = panel(change, session, "csrf", False)
    assert ("/do/approve" in shown, "/do/refuse" in shown) == (who == "holder", who != "other")
    assert "refused by the operator" not in shown
    assert "refused by the operator" in panel({**change, "state": "refused"}, session, "csrf", False)
    said: dict[str, Any] = {"decision": "refused", "duty": "security", "name": "Sam", "at": None, "proof": "passkey"}
    said |= {"email": "sam@acme.example", "withdrawn_at": None, "unseparated": False, "demo": False, "comment": ""}
    assert "refused by the operator" not in panel(
        {**change, "state": "refused", "approvals": [said]}, session, "csrf", False
    )
