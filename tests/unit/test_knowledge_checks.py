"""Checks of tables, sensors and text, and what tells versions apart: a case that fails and one that holds, each."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from groundplan.blueprint.model import Source, Term
from groundplan.catalog.governed import CheckRule
from groundplan.core.detect import PERSONAL, SECRETS
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.quality import documents, versions
from groundplan.knowledge.quality.documents import document_findings
from groundplan.knowledge.quality.model import AssessedDocument
from groundplan.knowledge.quality.tables import check_table, parse_number, parse_time, table_findings
from groundplan.knowledge.quality.text import (
    count_personal,
    glossary,
    glossary_violations,
    phrase_matcher,
    structure_problems,
)
from groundplan.knowledge.quality.versions import Conflict, statements, title_stem, version_rank
from groundplan.knowledge.writing_systems import RUN

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def conflicts(one: str, other: str) -> list[Conflict]:
    return versions.find_conflicts(statements(one), statements(other))


def codes(cells: list[str], check: dict[str, Any], times: list[str] | None = None) -> set[str]:
    columns = ["v", "at"] if times else ["v"]
    rows = [[cell, at] for cell, at in zip(cells, times, strict=True)] if times else [[cell] for cell in cells]
    table = Table(name="t", columns=columns, rows=rows)
    return {code for code, _, _ in check_table(table, {"column": "v", **check}, misfits, NOW)}


def misfits(pattern: str, values: Sequence[str]) -> list[int] | None:
    if pattern == "slow":
        return None
    return [number for number, value in enumerate(values) if not re.fullmatch(pattern, value)]


@pytest.mark.parametrize(
    ("code", "check", "bad", "good"),
    [
        ("type", {"type": "number"}, ["1", "two"], ["1", "-2.5e3"]),
        ("type", {"type": "integer"}, ["1.5"], ["15", ""]),
        ("type", {"type": "date"}, ["soon"], ["2026-11-25", "2026-11-25T10:00:00Z"]),
        ("range", {"at_least": 0, "at_most": 16}, ["4", "17"], ["0", "16"]),
        ("nulls", {"nulls": 0.1}, ["1", "", "3"], ["1"] * 10 + [""]),
        ("key", {"unique": True}, ["1", "2", "1"], ["1", "2", ""]),
        ("values", {"one_of": ["a", "b"]}, ["a", "c"], ["b", ""]),
        ("form", {"matches": "[A-Z]-[0-9]+"}, ["A-1", "A1"], ["A-1", "B-22"]),
        ("fresh", {"fresh": 86_400_000}, ["2026-11-20"], ["2026-11-20", "2026-11-25"]),
    ],
)
def test_a_declared_check_finds_what_it_names(
    code: str, check: dict[str, Any], bad: list[str], good: list[str]
) -> None:
    assert codes(bad, check) == {code}
    assert codes(good, check) == set()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("17,5", 17.5), ("1.234,56", 1234.56), ("1,234.567", 1234.567), ("1,250,000", 1_250_000), ("1'234.5", 1234.5),
        ("1\u202f234,5", 1234.5), ("-3,25", -3.25), ("1,234", None), ("1.23,4", None), ("1,2,3", None), ("5 EUR", None),
    ],
)  # fmt: skip
def test_a_number_is_read_as_people_write_it_where_that_is_certain(cell: str, value: float | None) -> None:
    assert parse_number(cell) == value
    assert codes([cell], {"at_most": 1}) == ({"type"} if value is None else {"range"} if value > 1 else set())


@pytest.mark.parametrize(("cell", "day"), [("31.12.2026", (12, 31)), ("1.2.2026 9:05", (2, 1)), ("12/31/2026", None)])
def test_a_day_with_dots_stands_first(cell: str, day: tuple[int, int] | None) -> None:
    found = parse_time(cell)
    assert (None if found is None else (found.month, found.day)) == day


def test_a_check_that_cannot_be_held_against_anything_is_told() -> None:
    """It looked as if all were well."""
    assert codes(["12 bar", "13 bar"], {"sensor": True, "stuck": 2}) == {"type"}
    times = ["11/25/2026 10:00", "11/25/2026 10:01"]
    assert codes(["1", "100"], {"sensor": True, "rate": 1, "time": "at"}, times) == {"time"}
    assert codes(["1", "", "2"], {"at_least": 0}) == set()


def test_a_column_that_is_not_there_is_one_finding() -> None:
    table = Table(name="t", columns=["other"], rows=[["1"], ["2"]])
    assert [code for code, _, _ in check_table(table, {"column": "v", "unique": True, "nulls": 0.0}, misfits, NOW)] == [
        "column"
    ]


def test_a_form_that_takes_too_long_is_one_finding_and_the_other_checks_go_on() -> None:
    source = Source(
        name="s", path="x", sensitivity="internal", owner="o", readers=["everyone"],
        checks=[{"column": "x", "matches": "slow", "unique": True}],
    )  # fmt: skip
    found = table_findings(source, "t.csv", [Table(name="t", columns=["x"], rows=[["1"], ["1"], [""]])], misfits, NOW)
    assert [(each.detail["check"], each.detail["rows"]) for each in found] == [("form_slow", 2), ("key", 1)]
    assert "too long" in found[0].message and "(a+)+" in (found[0].hint or "")


def times(count: int, minutes: float = 1.0, gap_at: int | None = None) -> list[str]:
    found, at = [], NOW
    for place in range(count):
        at += timedelta(minutes=90 if place == gap_at else minutes)
        found.append(at.isoformat())
    return found


WAVE = [f"{5 + (n % 5) * 0.1:.1f}" for n in range(40)]


@pytest.mark.parametrize(
    ("code", "check", "cells", "at"),
    [
        ("sensor_rate", {"rate": 1}, [*WAVE[:20], "9.0", *WAVE[20:39]], times(40)),
        ("sensor_gap", {"gap": 600_000}, WAVE, times(40, gap_at=20)),
        ("sensor_stuck", {"stuck": 6}, [*WAVE[:20], *["5.2"] * 8, *WAVE[:12]], times(40)),
        ("sensor_drift", {"drift": 3}, [f"{5 + (n % 5) * 0.1 + n * 0.05:.2f}" for n in range(40)], times(40)),
    ],
)
def test_a_sensor_that_fails_is_told_and_a_good_one_is_not(
    code: str, check: dict[str, Any], cells: list[str], at: list[str]
) -> None:
    every = {"rate": 1, "gap": 600_000, "stuck": 6, "drift": 3, "sensor": True, "time": "at"}
    assert code in codes(cells, {"sensor": True, "time": "at", **check}, at)
    assert codes(WAVE, every, times(40)) == set()


def test_a_number_beyond_all_bounds_is_out_of_range_and_no_reading() -> None:
    every = {"rate": 1, "gap": 600_000, "stuck": 6, "drift": 3, "sensor": True, "time": "at", "at_most": 16}
    for beyond in ("1e999", "-1e999", "9" * 400, "1.7e308", "-1e301"):
        cells = [beyond if n % 3 else cell for n, cell in enumerate(WAVE)]
        low = {"at_least": 0, **every}
        assert codes(cells, low, times(40)) == {"range"}
        assert codes([beyond] * 40, low, times(40)) == {"range"}


def test_drift_of_a_sensor_that_stands_still_is_counted_in_its_steps() -> None:
    """It has no deviation: a tenth of a degree was a drift by 100,000,000 standard deviations."""
    check = {"sensor": True, "time": "at", "drift": 3}
    assert codes([*["20.0"] * 30, *["20.1"] * 10], check, times(40)) == set()
    assert codes([*["20.0"] * 20, "20.1", *["20.0"] * 9, *["20.2"] * 10], check, times(40)) == set()
    assert codes(["20.0"] * 40, check, times(40)) == set()
    rising = [f"{20 + max(0, n - 12) * 0.1:.1f}" for n in range(40)]
    rows = list(map(list, zip(rising, times(40), strict=True)))
    (told,) = check_table(Table(name="t", columns=["x", "at"], rows=rows),
                      {"column": "x", **check}, misfits, NOW)  # fmt: skip
    assert told[0] == "sensor_drift" and told[2]["drift"] == pytest.approx(22.5)


def test_several_sensors_in_one_table_are_kept_apart() -> None:
    rows = [[cell, at, name] for n, (cell, at) in enumerate(zip(WAVE, times(40), strict=True)) for name in ("a", "b")
            for cell in [cell if name == "a" else str(float(cell) + 50)]]  # fmt: skip
    table = Table(name="t", columns=["x", "at", "pump"], rows=rows)
    check = {"column": "x", "sensor": True, "time": "at", "rate": 1}
    assert {code for code, *_ in check_table(table, check, misfits, NOW)} == {"sensor_rate"}
    assert list(check_table(table, {**check, "by": "pump"}, misfits, NOW)) == []
    rows[40][0] = "99"
    (told,) = check_table(table, {**check, "by": "pump"}, misfits, NOW)
    assert told[0] == "sensor_rate" and told[1].startswith("a: ") and told[2]["sensor"] == "a"
    assert [code for code, *_ in check_table(table, {**check, "time": "when"}, misfits, NOW)] == ["column"]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"sensor": True}, "looks for nothing"),
        ({"stuck": 3}, "write sensor: true"),
        ({"sensor": True, "rate": 1}, "time: COLUMN"),
        ({"time": "at"}, "write sensor: true"),
        ({"matches": "["}, "no regular expression"),
        ({"matches": "a{99999999999999}"}, "no regular expression"),
    ],
)
def test_a_check_that_would_do_nothing_is_refused(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        CheckRule.model_validate({"column": "x", **rule})
    CheckRule.model_validate(
        {"column": "x", "sensor": True, "time": "at", "rate": 1, "by": "pump", "matches": "[0-9]+"}
    )


def test_a_check_is_about_its_own_tables() -> None:
    source = Source(
        name="s", path="x", sensitivity="internal", owner="o", readers=["everyone"],
        checks=[{"column": "x", "unique": True}, {"column": "y", "table": "read*", "unique": True}],
    )  # fmt: skip
    tables = [Table(name="other", columns=["a"], rows=[["1"]]), Table(name="readings", columns=["x"], rows=[["1"]])]
    found = table_findings(source, "report.docx", tables, misfits, NOW)
    assert [(each.detail["column"], each.detail["check"]) for each in found] == [("y", "column")]
    assert {each.detail["column"] for each in table_findings(source, "readings.csv", tables[1:], misfits, NOW)} == {"y"}
    assert {each.detail["column"] for each in table_findings(source, "other.csv", tables[:1], misfits, NOW)} == {"x"}


def test_readings_are_looked_at_in_the_order_of_their_times() -> None:
    cells, at = WAVE[:10], times(10)
    mixed = list(zip(cells, at, strict=True))[::-1]
    check = {"sensor": True, "time": "at", "rate": 1, "gap": 600_000}
    assert codes([cell for cell, _ in mixed], check, [time for _, time in mixed]) == set()


@pytest.mark.parametrize(
    ("code", "bad", "good"),
    [
        ("empty", "  \n", "# A\n\ntext"),
        ("encoding", "caf\ufffd", "café"),
        ("placeholder", "Ask TBD for it.", "TBDs are told."),
        ("fence", "```\ncode", "```\ncode\n```"),
        ("levels", "# A\n\n### C", "# A\n\n## B\n\n### C\n\n# D"),
        ("headings", "word " * 900, "# A\n\n" + "word " * 900),
        ("repeated", "# A\n\nx\n\n# A\n\ny", "# A\n\n## B\n\n## B\n"),
        ("table", "| a | b |\n| --- | --- |\n| 1 |\n", "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n\n| c |\n| --- |\n"),
    ],
)
def test_the_structure_of_a_document(code: str, bad: str, good: str) -> None:
    assert [found for found, _, _ in structure_problems(bad, markdown=True)] == [code]
    assert structure_problems(good, markdown=True) == []


def test_headings_in_code_are_no_headings() -> None:
    assert structure_problems("# A\n\n```\n#### not one\n```\n", markdown=True) == []


def test_forbidden_words_are_whole_words_and_the_term_itself_is_none() -> None:
    terms = [
        Term(name="a", title="remote work", meaning="m", forbidden=["home office", "Remote Work"]),
        Term(name="b", title="pump", meaning="m", forbidden=["mover"]),
    ]
    known = glossary(terms)
    assert glossary_violations("Home  office, home office, HOME OFFICE; remote work. A remover.", known) == [
        ("home office", "remote work", 3)
    ]
    assert glossary_violations("We like the home\n office.", known) == [("home office", "remote work", 1)], (
        "a line ends in it"
    )
    assert glossary_violations("Nothing.", glossary([])) == []
    chinese = glossary([Term(name="leave", title="年假", meaning="有薪的假期", forbidden=["休假", "PTO休假", "off"])])
    assert glossary_violations("员工的休假须申请：PTO休假、OFF，不是office。", chinese) == [
        ("休假", "年假", 1),
        ("pto休假", "年假", 1),
        ("off", "年假", 1),
    ]


def test_a_word_of_a_whole_title_is_not_forbidden_there() -> None:
    known = glossary([Term(name="d", title="Service desk", meaning="m", forbidden=["desk", "help desk"])])
    assert glossary_violations("Ask the service\ndesk, the Service Desk or the help desk. A desk.", known) == [
        ("help desk", "Service desk", 1), ("desk", "Service desk", 1),
    ]  # fmt: skip
    assert glossary_violations("The service desk.", known) == []


@pytest.mark.parametrize(
    ("forbidden", "text"),
    [
        ("firma", "Fırma"), ("disk", "DİSK ve disk"), ("task", "taſk"), ("k", "\u212a"), ("µm", "μm"),
        ("πελάτης", "πελάτησ"),
    ],
)  # fmt: skip
def test_letters_that_count_as_the_same_stop_no_look(forbidden: str, text: str) -> None:
    found = glossary_violations(text, glossary([Term(name="t", title="other", meaning="m", forbidden=[forbidden])]))
    assert [word for word, _, _ in found] == [forbidden]


_SAID = st.text(alphabet="abAB .-#\n休年", max_size=30)
_SOUGHT = st.lists(
    st.text(alphabet="ab .-#", min_size=1, max_size=6) | st.text(alphabet="ab休年-", min_size=1, max_size=4), max_size=6
)


@given(_SOUGHT, st.lists(_SAID, max_size=4))
@settings(max_examples=400)
def test_words_are_found_as_by_one_pattern_of_them(words: list[str], texts: list[str]) -> None:
    words = sorted({word.strip().lower() for word in words if word.strip()}, key=lambda word: (-len(word), word))
    text = " ".join([*words, *texts, *words[::-1]])

    def whole(word: str) -> str:
        before, after = "" if RUN.match(word[0]) else r"(?<!\w)", "" if RUN.match(word[-1]) else r"(?!\w)"
        written = r"\s+".join(map(re.escape, word.split()))
        return f"({before}{written}{after})"

    wanted: list[str] = []
    if words:
        pattern = re.compile("|".join(map(whole, words)), re.IGNORECASE)
        wanted = [words[(found.lastindex or 0) - 1] for found in pattern.finditer(text)]
    assert sorted(phrase_matcher(words).find_all(text)) == sorted(wanted)


def test_a_text_costs_as_much_with_thousands_of_words_that_are_forbidden() -> None:
    """All of them at each of its places took minutes, in which the control process answered nothing."""
    terms = [
        Term(name=f"t{n}", title=f"term {n}", meaning="m", forbidden=[f"word{n}", f"a word{n}"]) for n in range(2000)
    ]
    text = " ".join(f"word{n % 5000} and another" for n in range(20_000))
    begun = time.process_time()
    assert len(glossary_violations(text, glossary(terms))) == 2000
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("text", ["[insert" * 70_000, "# a" + " " * 50_000 + "b", "# a" + " #" * 50_000, "|" * 99_999])
def test_the_structure_of_a_hostile_text_is_told_at_once(text: str) -> None:
    begun = time.process_time()
    structure_problems(text, markdown=True)
    assert time.process_time() - begun < 2


def test_a_time_that_is_still_to_come_makes_no_table_fresh() -> None:
    check = {"fresh": 86_400_000}
    assert codes(["2026-11-20", "2099-01-01"], check) == {"fresh"}
    assert codes(["2026-11-20", "2026-11-26T10:00:00"], check) == set(), "of a zone that is ahead"


def test_secrets_are_told_apart_from_personal_data() -> None:
    assert count_personal("ana@acme.example and AKIA" + "ABCDEFGHIJKLMNOP") == {"!aws_key": 1, "email": 1}
    assert count_personal("Nothing personal in hall 7.") == {}


def test_what_tells_versions_apart_is_no_part_of_a_title() -> None:
    assert (
        title_stem("Travel and expenses (2021)")
        == title_stem("Travel and expenses")
        == title_stem("Travel and expenses v2.1")
    )
    assert title_stem("Travel") != title_stem("Travel abroad")
    assert version_rank("Policy v3", "policy-2024.md") == ((2024,), (3,))


def test_sentences_that_differ_in_their_numbers_only_are_a_conflict() -> None:
    one = "The daily allowance for meals abroad is 50 euros. Keep receipts for 6 months in the office."
    two = "The daily allowance for meals abroad is 64 euros. Parking at the plant costs nothing since 2020."
    (found,) = conflicts(one, two)
    assert ("50" in found.one, "64" in found.other) == (True, True)
    assert conflicts(one, one) == []
    assert conflicts("Call 5 people.", "Call 6 people.") == [], "too few words to be sure"


def assessed_document(**more: Any) -> AssessedDocument:
    return AssessedDocument(**{
        "id": uuid4(), "source": "s", "path": "a.md", "title": "A", "state": "approved", "sensitivity": "internal",
        "owner": "ana@acme.example", "steward": None, "modified_at": None, "review_by": None, "review_days": None,
        "valid_until": None, "superseded_by": None, "content": None, "notes": (), "readers": ("everyone",),
        "personal": None, "checked": None, "declared": {}, "decided": {}, "source_owner": "ana@acme.example", **more,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "newest"), [("2020-05-01", "Travel 2024"), ("2025-05-01", "Travel"), (None, "Travel")]
)
def test_a_title_without_a_year_is_as_old_as_its_file(changed: str | None, newest: str) -> None:
    at = None if changed is None else datetime.fromisoformat(f"{changed}T00:00:00Z")
    looks = [
        assessed_document(title="Travel", content="a", modified_at=at),
        assessed_document(title="Travel 2024", content="b", path="b.md"),
    ]
    (found,) = versions.find_versions(looks)
    assert looks[found.newest].title == newest


@pytest.mark.parametrize(
    ("newer", "older"),
    [("Rates 2026-04-01", "Rates 2026-03-15"), ("Rates v1.10", "Rates v1.9"), ("Rates v2", "Rates v1.9")],
)
def test_a_day_and_each_part_of_a_version_tell_which_is_newer(newer: str, older: str) -> None:
    """Whichever file was changed last: they all were, where a repository was cloned."""
    at = datetime.fromisoformat("2026-05-01T00:00:00Z")
    looks = [
        assessed_document(title=newer, content="a", modified_at=at),
        assessed_document(title=older, content="b", modified_at=at + timedelta(days=1)),
    ]
    (found,) = versions.find_versions(looks)
    assert looks[found.newest].title == newer


@pytest.mark.parametrize(
    ("readers", "kinds"),
    [
        (["source/s"], set()),
        (["hr", "source/s"], set()),
        (["hr", "source/t"], {"knowledge.reader_unknown"}),
        (["source/t"], {"knowledge.reader_unknown", "knowledge.nobody"}),
        (["link/l"], set()),
    ],
)
def test_a_grant_on_another_source_lets_nobody_read_and_is_told(readers: list[str], kinds: set[str]) -> None:
    look = assessed_document(readers=readers, declared={"named": readers})
    assert {one.kind for one in document_findings(look, date(2026, 11, 25), {"hr", "ana@acme.example"})} == kinds


def test_numbers_that_are_the_same_are_no_conflict() -> None:
    one = "A pump with its seals costs 1,500 EUR a piece. Freight to every site costs 30.00 EUR as well."
    other = "A pump with its seals costs 1\u202f500 EUR a piece. Freight to every site costs 30 EUR as well."
    assert conflicts(one, other) == []
    assert len(conflicts(one, other.replace("30 EUR", "31 EUR"))) == 1


def test_versions_and_conflicts_are_found_in_scripts_without_spaces() -> None:
    assert title_stem("就業規則2021年版") == title_stem("就業規則2026年版") != title_stem("旅費規程2021年版")
    assert (
        title_stem("travel_policy_v2") == title_stem("travel_policy") and title_stem("Renewal 2020s") == "renewal 2020s"
    )
    found = conflicts("年次有給休暇は25日です。会議は月曜日です。", "昇給は4月です。年次有給休暇は３０日です。")
    assert [(one.one, one.other) for one in found] == [("年次有給休暇は25日です。", "年次有給休暇は３０日です。")]
    assert conflicts("年次有給休暇は25日です。", "年次有給休暇は２５日です。") == []
    assert conflicts("年次有給休暇は25日です。", "従業員の残業は月に45時間までです。") == []


def test_of_texts_with_numbers_without_end_the_first_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MAX_STATEMENTS", 3)
    same = [f"The pump of hall {at} has {at} valves and filters.\n" for at in range(1, 5)]
    one = "".join([*same[:2], "The yearly allowance for travel is 100 EUR.\n", *same[2:]])
    other = one.replace("100 EUR", "120 EUR")
    assert [(each.one[-8:], each.other[-8:]) for each in conflicts(one, other)] == [("100 EUR.", "120 EUR.")]
    late = "".join([*same, "The yearly allowance for travel is 100 EUR.\n"])
    assert conflicts(late, late.replace("100 EUR", "120 EUR")) == []


def test_a_finding_of_a_table_says_no_value_of_it() -> None:
    table = Table(name="pay", columns=["who", "pay", "at"], rows=[["ana", "250000", "x"], ["ben", "7", "x"]])
    rules: list[dict[str, Any]] = [
        {"column": "pay", "at_most": 100},
        {"column": "who", "one_of": ["ben"]},
        {"column": "at", "type": "date"},
    ]
    source = Source(name="s", path="s", sensitivity="restricted", owner="o@x.example", readers=[], checks=rules)
    found = table_findings(source, "pay.csv", [table], lambda _, __: [])
    assert len(found) == 3
    for one in found:
        assert not any(word in f"{one.message} {one.detail} {one.mark}" for word in ("250000", "ana", "ben"))
    assert {one.quote for one in found} == {"250000", "ana", "row 1: x, row 2: x"}


def test_what_is_told_of_a_table_reads_well() -> None:
    def told(cells: list[str], **check: Any) -> list[str]:
        source = Source(
            name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
            checks=[{"column": "v", **check}],
        )  # fmt: skip
        table = Table(name="bench.csv", columns=["v"], rows=[[cell] for cell in cells])
        return [each.message for each in table_findings(source, "in/bench.csv", [table], misfits, NOW)]

    assert told(["1", "9"], at_most=5) == ["in/bench.csv: 'v' is out of range in row 2"]
    assert told(["9"] * 7, at_most=5) == ["in/bench.csv: 'v' is out of range in 7 rows (1, 2, 3, 4, 5, …)"]
    assert told([""], nulls=0.0) == ["in/bench.csv: 'v' has no value in 1 of 1 row"]
    sheet = Table(name="Tools", columns=["v"], rows=[["9"]])
    check: dict[str, Any] = {"column": "v", "at_most": 5}
    source = Source(
        name="s", path="s", sensitivity="internal", owner="a@b.example", readers=["everyone"], checks=[check]
    )
    (found,) = table_findings(source, "tools.xlsx", [sheet], misfits, NOW)
    assert found.message == "Tools of tools.xlsx: 'v' is out of range in row 1"


def test_every_kind_of_personal_data_and_secret_has_a_name() -> None:
    assert set(documents._KIND_NAMES) == {*PERSONAL, *SECRETS}
    assert documents.counts_text({"email": 2, "card": 1, "iban": 3}) == "1 card number, 2 e-mail addresses, 3 IBANs"
