"""The pages of Cost: from the company to one call in four clicks, with what is ahead and each team's statement."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.integration.test_api_control import WORKSPACE, Control, run_control
from tests.integration.test_cost_book import command, costs, fill, newest_month, words
from tests.integration.this_day import DailyValue, daily_value, today

from groundplan.console.render import format_amount
from groundplan.testing.database import Cluster

Browser = dict[str, str]


@pytest.fixture(scope="module")
def controls(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DailyValue[Control]]:
    @contextmanager
    def made() -> Iterator[Control]:
        with postgres_cluster.database() as database:
            folder = tmp_path_factory.mktemp("pages")
            with run_control(database, folder, module="groundplan.console.app") as found:
                (found.workspace / "costs.yaml").write_text(costs())
                assert found.ask("POST", "/api/apply", {"files": found.files()}).status in (200, 201)
                fill(database.dsn, newest=0)
                yield found

    with daily_value(made) as found:
        yield found


@pytest.fixture
def control(controls: DailyValue[Control]) -> Control:
    return controls.get()


@pytest.fixture
def browser(control: Control) -> Browser:
    return control.sign_in()


def page(control: Control, browser: Browser, path: str) -> str:
    answer = control.ask("GET", path, **browser)
    assert answer.status == 200, answer.body
    return answer.body.decode() if isinstance(answer.body, bytes) else str(answer.body)


def test_from_the_company_to_a_call_in_four_clicks(control: Control, browser: Browser) -> None:
    assert 'allocated beside them is under <a href="/cost/book">All costs' in page(control, browser, "/cost")
    text = page(control, browser, "/cost/book?by=workload")
    link = re.search(r'href="(/cost/workload/assistant)"', text)
    assert link is not None
    text = page(control, browser, link[1])
    assert "by equal (allocation platform)" in text and "<svg" in text
    link = re.search(r'href="(/calls\?workload=assistant)"', text)
    assert link is not None
    receipts = re.findall(r'href="(/calls/[0-9a-f-]{36})"', page(control, browser, link[1]))
    text = page(control, browser, receipts[-1])  # of a day that is over: what is allocated beside it is known
    assert "assistant" in text and "It is placed at local: " in text
    assert "Allocated costs" in text and "by equal (allocation platform)" in text and "contract 12" in text


@pytest.mark.parametrize("by", ["term", "team", "site", "model", "nonsense"])
def test_the_book_is_summed_by_what_is_asked(control: Control, browser: Browser, by: str) -> None:
    assert "idle" in page(control, browser, f"/cost/book?by={by}")


def test_a_month_that_is_over_is_shown_with_its_lines_the_dearest_first(control: Control, browser: Browser) -> None:
    over = (today().replace(day=1) - timedelta(days=1)).date()
    span = f"first={over.replace(day=1)}&last={over}"
    told = control.ask("GET", f"/api/cost/book?{span}&lines=true").body
    text = page(control, browser, f"/cost/book?by=workload&month={over:%Y-%m}")
    assert f"{over.replace(day=1)} to {over}" in text
    assert f'href="/cost/workload/assistant?month={over:%Y-%m}"' in text and f"by=team&amp;month={over:%Y-%m}" in text
    rows = text.partition("Line by line")[2].partition("By document source")[0]
    lines = [Decimal(cost.replace(",", "")) for cost in re.findall(r'data-label="Cost">\$([\d.,]+)<', rows)]
    assert lines == sorted(lines, reverse=True) and len(lines) > 3
    file = page(control, browser, f"/cost/files/focus.csv?month={over:%Y-%m}")
    billed = [Decimal(row["BilledCost"]) for row in csv.DictReader(io.StringIO(file))]
    assert sum(billed) == Decimal(told["total_usd"])
    text = page(control, browser, f"/cost/workload/assistant?month={over:%Y-%m}")
    assert f"{over.replace(day=1)} to {over}" in text and "by equal (allocation platform)" in text
    text = page(control, browser, "/cost/workload/assistant?month=1999-01")
    assert f"{today().date()}:" in text, "this month"


def test_what_no_person_asked_is_called_the_same_in_the_chart_and_in_the_table(
    control: Control, browser: Browser
) -> None:
    text = page(control, browser, "/cost/book?by=person")
    assert "term: no person" in text and "<td>no person</td>" in text


def test_a_workload_that_never_was_has_no_page_of_its_cost(control: Control, browser: Browser) -> None:
    answer = control.ask("GET", "/cost/workload/asistant", **browser)
    assert answer.status == 404 and b"asistant" in answer.body


@pytest.mark.parametrize("what", ["cost", "calls", "tokens"])
def test_what_is_ahead_is_drawn(control: Control, browser: Browser, what: str) -> None:
    text = page(control, browser, f"/cost/ahead?what={what}&workload=assistant")
    assert "<svg" in text and "(80 % interval)" in text


def test_a_workload_that_is_not_served_any_more_is_named_where_its_costs_are_forecast(
    control: Control, browser: Browser
) -> None:
    files = control.files()
    others = {name: text.replace("assistant", "helper") for name, text in files.items()}
    assert control.ask("POST", "/api/apply", {"files": others}).status == 200
    try:
        text = page(control, browser, "/cost/ahead?workload=assistant")
        assert "(80 % interval)" in text and "<option selected>assistant</option>" in text
        assert "<option>helper</option>" in text and " 0 " not in text.partition("ean of ")[2].partition(",")[0]
    finally:
        assert control.ask("POST", "/api/apply", {"files": files}).status == 200


def test_without_history_the_page_says_what_to_do(control: Control, browser: Browser) -> None:
    assert "No workload &#39;nobody&#39; is served. Served are: assistant." in page(
        control, browser, "/cost/ahead?workload=nobody"
    )
    files = control.files()
    quiet = WORKSPACE[WORKSPACE.index("kind: workload") :].replace("assistant", "quiet")
    assert control.ask("POST", "/api/apply", {"files": {**files, "quiet.yaml": quiet}}).status == 200
    try:
        assert "The next 30 days cannot be forecast from 0 days of history. Wait for 8 days of history" in page(
            control, browser, "/cost/ahead?workload=quiet"
        )
    finally:
        assert control.ask("POST", "/api/apply", {"files": files}).status == 200


def test_a_source_tells_of_how_many_documents_calls_were_given(control: Control, browser: Browser) -> None:
    text = page(control, browser, "/cost/book")
    assert "Documents given" in text and 'data-label="Documents given"' in text


def test_statements_are_shown_and_given_as_files(control: Control, browser: Browser) -> None:
    month = newest_month()
    text = page(control, browser, f"/cost/statements?month={month}")
    assert "not carried by a team" in text
    made = control.ask("GET", f"/api/cost/statements?month={month}").body
    first = made["statements"][0]
    book = control.ask("GET", f"/api/cost/book?first={first['from']}&last={first['to']}").body
    assert made["total_usd"] == book["total_usd"], "together exactly what was spent"
    assert re.search(rf"all teams</td><td[^>]*>{re.escape(format_amount(made['total_usd']))}<", text)
    before = "the month before" if first["over"] else "the same days of the month before"
    assert f"T{before[1:]}</th>" in text
    shown = page(control, browser, f"/cost/statements/print?team=care&month={month}")
    assert "Shown, not charged." in shown and f", {before} $" in shown
    assert "team,from,to,kind,workload" in page(control, browser, f"/cost/files/statement.csv?team=care&month={month}")
    answer = control.ask("GET", f"/cost/files/statement.pdf?team=care&month={month}", **browser)
    assert answer.status == 200 and answer.body.startswith(b"%PDF-"), answer.body
    assert f'filename="statement-care-{month}.pdf"' in answer.headers["content-disposition"]
    assert "BilledCost" in page(control, browser, "/cost/files/focus.csv")
    assert "print?team=care&amp;month=" + month + "&amp;charge=true" in page(
        control, browser, f"/cost/statements?month={month}&charge=true"
    )
    charged = page(control, browser, f"/cost/statements/print?team=care&month={month}&charge=true")
    assert "To be charged." in charged and 'charge=true">as PDF' in charged
    assert ",chargeback,assistant," in page(
        control, browser, f"/cost/files/statement.csv?team=care&month={month}&charge=true"
    )


def test_a_scenario_is_priced_step_by_step_on_the_page(control: Control, browser: Browser) -> None:
    text = page(control, browser, "/cost/ahead?changes=users%3D2+price%3D-50%25&workload=assistant")
    assert "actual" in text
    assert "people" in text and "prices" in text
    assert 'value="users=2 price=-50%"' in text
    assert "what is allocated beside them" in text
    assert "is no change of a scenario" in page(control, browser, "/cost/ahead?changes=luck%3D2")
    assert "no price is known" in page(control, browser, "/cost/ahead?model=acme%2Funheard-of")


def test_declared_days_count_for_page_command_and_budgets_alike(control: Control, browser: Browser) -> None:
    def seen() -> tuple[float, float, float]:
        made = control.ask("GET", "/api/cost/forecast?what=calls&days=7").body
        (budget,) = control.ask("GET", "/api/cost/runway?workload=assistant").body["budgets"]
        spent = float(budget["expected_usd"]) - float(budget["spent_usd"])
        return made["total"], spent, command(control, "forecast", "--what", "calls", "--days", "7")["total"]

    files, before = control.files(), seen()
    off, day = (today() + timedelta(days=2)).date(), today().date()
    text = files["acme.yaml"].replace("format: 1\n", f"format: 1\ncalendar: {{countries: [NO], holidays: [{off}]}}\n")
    launch = f"launches: [{{day: {day}, factor: 3, name: campaign}}]\n"
    text = text.replace("deployments: [local]\n", f"deployments: [local]\n{launch}", 1)
    done = control.ask("POST", "/api/apply", {"files": {**files, "acme.yaml": text}})
    assert done.status == 200 and done.body["blueprint"] is not None and not done.body["pending"], "nobody approves it"
    try:
        after = seen()
        assert all(new > 1.5 * old for old, new in zip(before, after, strict=True)), (before, after)
        assert after[0] == after[2], "the command says what the page says"
        made = control.ask("GET", "/api/cost/forecast?what=calls&days=7").body
        assert made["calendar"] == {
            "countries": ["NO"],
            "holidays": [off.isoformat()],
            "launches": [{"workload": "assistant", "day": day.isoformat(), "factor": 3.0, "name": "campaign"}],
        }
        shown = page(control, browser, "/cost/ahead?what=calls")
        assert f"Launch of assistant on {day}: 3 times as much, campaign." in shown
        assert "public holidays of NO" in shown and off.isoformat() in shown
        assert f"launch of assistant on {day}: 3 times as much, campaign" in words(control, "forecast")
    finally:
        assert control.ask("POST", "/api/apply", {"files": files}).status == 200
