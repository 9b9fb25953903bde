"""Reading a workspace: the smallest one, every problem at its place, hostile YAML, files that may not be read."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.api.routes.changes import Declared
from groundplan.catalog import loader
from groundplan.catalog.loader import load, load_files, read_files
from groundplan.catalog.model import price_on
from groundplan.catalog.reader import read_documents
from groundplan.catalog.units import iso_date
from groundplan.catalog.workspace import satisfies_residency
from groundplan.cli.release import workspace_files
from groundplan.core.errors import Invalid, Problem

SMALLEST = """\
kind: company
name: acme
format: 1
---
kind: site
name: azure-sweden
type: cloud
jurisdiction: EU
---
kind: deployment
name: gpt-eu
site: azure-sweden
model: openai/gpt-4.1-mini     # a known model brings its price
url: https://acme.example/openai/v1
key: env:AZURE_KEY
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: dana@acme.example
readers: [everyone]
---
kind: workload
name: staff-assistant
purpose: Answer staff questions from the handbook
audience: employees            # employees | customers | public
stage: pilot
sensitivity: internal
residency: [EU]
sources: [handbook]
objectives: {first_token: 800ms, availability: 99.5%}
owners: {business: ana@acme.example, security: sam@acme.example, finance: fay@acme.example}
---
kind: budget
name: staff-assistant
covers: workload/staff-assistant
limit: 200 USD/month
"""


def problems_of(text: str) -> tuple[Problem, ...]:
    return read_files({"a.yaml": text}).problems


def problems_after_change(old: str, new: str) -> tuple[Problem, ...]:
    assert old in SMALLEST
    return problems_of(SMALLEST.replace(old, new, 1))


def only(problems: tuple[Problem, ...]) -> tuple[str, str, str]:
    """(code, place, hint) of the one problem."""
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0].code, str(problems[0].where), problems[0].hint


def test_the_smallest_workspace() -> None:
    workspace = load_files({"a.yaml": SMALLEST})
    workload = workspace.workloads["staff-assistant"]
    assert workload.objectives.first_token == 800
    assert workload.objectives.availability == 0.995
    assert workspace.owner_emails(workload.owners)["business"] == ("ana@acme.example",)
    assert workspace.deployments["gpt-eu"].name_upstream == "gpt-4.1-mini"
    assert workspace.sources["handbook"].path == "handbook"
    assert workspace.budgets["staff-assistant"].limit.amount == 200 * 10**12
    assert workspace.budgets_of("staff-assistant") == ("staff-assistant",)
    assert workspace.names_by_email()["dana@acme.example"] == "Dana"
    assert workspace.company.caps.people == 25


def test_every_value_knows_its_place() -> None:
    workspace = load_files({"a.yaml": SMALLEST})
    assert str(workspace.where("workload", "staff-assistant", "owners", "security", 0)) == "a.yaml:33:48"
    assert str(workspace.where("workload", "staff-assistant", "stage")) == "a.yaml:28:8"
    assert str(workspace.where("workload", "staff-assistant", "sources", 0)) == "a.yaml:31:11"
    assert str(workspace.where("workload", "staff-assistant", "traffic")) == "a.yaml:24:1"
    assert str(workspace.where("budget", "staff-assistant", "limit")) == "a.yaml:38:8"


def test_the_order_of_files_and_documents_does_not_matter() -> None:
    parts = SMALLEST.split("---\n")
    one = load_files({"a.yaml": SMALLEST})
    other = load_files({f"{9 - i}.yml": part for i, part in enumerate(parts)})
    assert list(one.documents) == list(other.documents)
    assert [doc for doc, _ in one.documents.values()] == [doc for doc, _ in other.documents.values()]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("audience:", "audiense:", ("unknown_key", "a.yaml:27:1", "Did you mean audience?")),
        ("first_token", "first_tokn", ("unknown_key", "a.yaml:32:14", "Did you mean first_token?")),
        ("business: ana", "busines: ana", ("unknown_key", "a.yaml:33:10", "Did you mean business?")),
        ("type: cloud", "type: clowd", ("unknown_value", "a.yaml:7:7", "Did you mean cloud?")),
        ("stage: pilot", "stage: live", ("unknown_value", "a.yaml:28:8", "")),
        ("kind: budget", "kind: budgte", ("kind_unknown", "a.yaml:35:7", "Did you mean budget?")),
        ("800ms", "800", ("invalid_value", "a.yaml:32:27", "Write a duration like 800ms, 2s, 15min, 1h or 90d.")),
        ("200 USD/month", "200 EUR", ("invalid_value", "a.yaml:38:8", "")),
        ("/month\n", "/month\ntimezone: Europe/Olso\n", ("invalid_value", "a.yaml:39:11", "Write a time zone")),
        ("name: azure-sweden", "name: 5", ("wrong_type", "a.yaml:6:7", "")),
        ("name: azure-sweden", "name: Azure Sweden", ("invalid_value", "a.yaml:6:7", "")),
        ("format: 1", "format: 2", ("unknown_value", "a.yaml:3:9", "One of: 1.")),
        ("jurisdiction: EU", "jurisdiction: false", ("wrong_type", "a.yaml:8:15", "")),
        ("{business: ana@acme.example", "{business: ana@@acme", ("invalid_value", "a.yaml:33:20", "")),
        ("./handbook", "../other", ("invalid_value", "a.yaml:19:7", "")),
        ("./handbook", "/etc", ("invalid_value", "a.yaml:19:7", "")),
        ("purpose: Answer staff questions from the handbook\n", "", ("missing_key", "a.yaml:24:1", "Add purpose: ...")),
        ("https://acme.example", "ftp://acme.example", ("invalid_value", "a.yaml:14:6", "")),
        ("https://acme.example", "https://user:pw@acme.example", ("invalid_value", "a.yaml:14:6", "")),
        ("https://acme.example", "https://acme.example:99999", ("invalid_value", "a.yaml:14:6", "Write a host")),
        ("stage: pilot", "stage: pilot\nstage: retired", ("duplicate_key", "a.yaml:29:1", "Keep one of them.")),
        ("kind: company\n", "", ("kind_missing", "a.yaml:1:1", "")),
    ],
)
def test_each_mistake_has_a_place_and_a_way_out(old: str, new: str, expected: tuple[str, str, str]) -> None:
    found = [problem for problem in problems_after_change(old, new) if problem.code != "company_missing"]
    code, where, hint = only(tuple(found))
    assert (code, where) == expected[:2]
    assert hint.startswith(expected[2]) and hint


def test_all_problems_are_told_at_once() -> None:
    text = SMALLEST.replace("type: cloud", "type: clowd").replace("99.5%", "99.5").replace("200 USD", "200 EUR")
    with pytest.raises(Invalid) as caught:
        load_files({"a.yaml": text, "b.yaml": "kind: [", "c.yaml": "kind: workflow\nname: X"})
    assert [str(problem.where) for problem in caught.value.problems] == [
        "a.yaml:7:7",
        "a.yaml:32:48",
        "a.yaml:38:8",
        "b.yaml:1:8",
        "c.yaml:2:7",
    ]


def test_a_name_twice_tells_both_places() -> None:
    reading = read_files(
        {"a.yaml": SMALLEST, "b.yaml": "kind: site\nname: azure-sweden\ntype: cloud\njurisdiction: EU"}
    )
    (problem,) = reading.problems
    assert (problem.code, str(problem.where)) == ("duplicate_name", "b.yaml:2:7")
    assert "a.yaml:6:7" in problem.message


def test_one_company() -> None:
    assert only(problems_of("kind: group\nname: hr"))[:2] == ("company_missing", "a.yaml:1:1")
    assert only(read_files({}).problems)[:2] == ("company_missing", "groundplan.yaml:1:1")
    twice = problems_of("kind: company\nname: a\n---\nkind: company\nname: b")
    assert only(twice)[:2] == ("company_twice", "a.yaml:5:7")


def test_norway_is_a_country_and_a_date_is_text() -> None:
    workspace = load_files({"a.yaml": SMALLEST.replace("jurisdiction: EU", "jurisdiction: NO")})
    assert workspace.sites["azure-sweden"].jurisdiction == "NO"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-" + "a1" * 12,
        "AKIA" + "A" * 16,
        "gp_" + "a" * 46,
        '"-----BEGIN RSA PRIVATE KEY-----"',
        "hunter2",
        "env:",
        "12345",
    ],
)
def test_a_secret_is_refused_and_never_repeated(secret: str) -> None:
    found = problems_after_change("env:AZURE_KEY", secret)
    assert found
    assert all(problem.where and problem.where.line == 15 for problem in found)
    assert not any(secret.strip('"') in str(problem) for problem in found if len(secret) > 4)


def test_a_secret_in_any_other_place_is_refused_too() -> None:
    secret = "ghp_" + "a" * 36
    found = problems_after_change("purpose: Answer", f"purpose: {secret} Answer")
    assert only(found)[0] == "secret_in_file"
    assert secret not in str(found[0])


def test_prices() -> None:
    text = SMALLEST.replace(
        "key: env:AZURE_KEY",
        "price:\n- {input: 1 USD/Mtok, output: 2 USD/Mtok}\n"
        "- {input: 3 USD/Mtok, output: 4 USD/Mtok, from: 2026-06-01}",
    )
    prices = load_files({"a.yaml": text}).deployments["gpt-eu"].price
    before, after = price_on(prices, iso_date("2026-05-31")), price_on(prices, iso_date("2026-06-01"))
    assert before and after and (before.input, after.input) == (10**12, 3 * 10**12)
    assert price_on(prices[1:], iso_date("2026-05-31")) is None
    (free,) = load_files({"a.yaml": SMALLEST.replace("key: env:AZURE_KEY", "price: free")}).deployments["gpt-eu"].price
    assert free.free and not before.free
    wrong = problems_after_change("key: env:AZURE_KEY", "price: {input: 1 USD/Mtok, outptu: 2 USD/Mtok}")
    assert {problem.code for problem in wrong} == {"unknown_key", "missing_key"}
    assert {problem.hint for problem in wrong} == {"Did you mean output?", "Add price.output: ..."}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &a [*a]", "yaml_alias"),
        ("a: *b", "yaml_alias"),
        ("[" * 5000, "yaml_too_deep"),
        ("a: !!python/object:os.system x", "yaml_tag"),
        ("? [a]\n: b", "yaml_key"),
        ("\x00", "yaml_syntax"),
        ("%YAML 9.9\n---\na: b", "yaml_syntax"),
        ("a: [b", "yaml_syntax"),
        ("a:\n\tb: c", "yaml_syntax"),
        ("- a\n- b", "document"),
        ("just text", "document"),
        ("#" * (1 << 20) + "#", "file_too_large"),
    ],
)
def test_hostile_yaml_is_refused_with_its_place(text: str, code: str) -> None:
    (problem,) = [problem for problem in problems_of(text) if problem.code != "company_missing"]
    assert problem.code == code
    assert problem.where is not None and problem.where.file == "a.yaml"


def test_an_alias_bomb_is_refused_early() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert only(problems_of("\n".join(lines)))[0] == "yaml_too_many"


def test_an_alias_may_repeat_a_value() -> None:
    text = SMALLEST.replace("business: ana@acme.example", "business: &ana ana@acme.example, product: *ana")
    workspace = load_files({"a.yaml": text})
    assert workspace.workloads["staff-assistant"].owners.product == ("ana@acme.example",)


def test_anchors_do_not_reach_into_the_next_document() -> None:
    assert only(problems_of("kind: company\nname: &n acme\n---\nkind: group\nname: *n"))[0] == "yaml_alias"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def codes(folder: Path) -> set[str]:
    with pytest.raises(Invalid) as caught:
        load(folder)
    return {problem.code for problem in caught.value.problems}


def test_a_folder_with_its_documents(tmp_path: Path) -> None:
    write(tmp_path, {"groundplan.yaml": SMALLEST, "handbook/leave.md": "# Leave", ".git/x.yaml": "kind: nonsense"})
    workspace = load(tmp_path)
    assert workspace.root == tmp_path
    assert list(workspace.files) == ["groundplan.yaml"]


def test_documents_of_a_source_are_not_declarations(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": SMALLEST, "handbook/data.yaml": "rows: [1, 2", "handbook/more.yml": "a: b"})
    assert list(load(tmp_path).files) == ["a.yaml"]
    write(tmp_path, {"handbook/hidden.yaml": "kind: group\nname: hr"})
    assert codes(tmp_path) == {"declaration_in_source"}


def test_thousands_of_files_are_declarations_and_what_is_not_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file for each workload of a large company; `check` took them, and `plan` only half as many."""
    Declared.model_validate({"files": {f"w{number}.yaml": "" for number in range(2500)}})
    assert loader.MAX_FILES >= 2500
    monkeypatch.setattr(loader, "MAX_FILES", 2)
    write(
        tmp_path, {"a.yaml": SMALLEST, "handbook/data.yaml": "a: b", "handbook/more.yml": "a: b", "z.yaml": "kind: no"}
    )
    assert codes(tmp_path) == {"too_many_files"}, "also where the last one that was counted is a document"


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": SMALLEST, "handbook/x.md": ""})
    (tmp_path / "bad.yaml").write_bytes(b"kind: group\nname: caf\xe9\n")
    with pytest.raises(Invalid) as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.code, str(problem.where)) == ("not_utf8", "bad.yaml:2:1")


def test_nothing_is_read_through_links_or_from_odd_files(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret.yaml": "kind: group\nname: outsiders"})
    inside = write(tmp_path / "inside", {"a.yaml": SMALLEST, "handbook/x.md": ""})
    (inside / "link.yaml").symlink_to(outside / "secret.yaml")
    (inside / "linked").symlink_to(outside, target_is_directory=True)
    os.mkfifo(inside / "pipe.yaml")
    assert codes(inside) == {"symlink", "not_a_file"}


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of another user: what is declared there would be taken back, its budgets too."""
    write(tmp_path, {"a.yaml": SMALLEST, "handbook/x.md": "", "finance/b.yaml": "kind: group\nname: a"})
    load(tmp_path)
    listed = os.scandir

    def denied(path: Any) -> Any:
        if os.fspath(path) == os.fspath(tmp_path / "finance"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert codes(tmp_path) == {"unreadable"}
    with pytest.raises(Invalid, match="finance cannot be read: Permission denied"):
        workspace_files(tmp_path)


def test_a_source_may_not_lead_out_of_the_workspace(tmp_path: Path) -> None:
    inside = write(tmp_path / "inside", {"a.yaml": SMALLEST})
    assert codes(inside) == {"source_path"}
    (inside / "handbook").symlink_to(tmp_path, target_is_directory=True)
    assert codes(inside) == {"source_path", "symlink"}


def test_a_large_file_and_a_missing_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": SMALLEST, "handbook/x.md": "", "big.yaml": "#" * ((1 << 20) + 1)})
    assert codes(tmp_path) == {"file_too_large"}
    with pytest.raises(Invalid, match="workspace_missing"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../a.yaml", "/etc/a.yaml", "a\\b.yaml", "a\n.yaml"])
def test_file_names_from_outside_are_refused(name: str) -> None:
    assert [problem.code for problem in read_files({"ok.yaml": SMALLEST, name: "kind: group\nname: x"}).problems] == [
        "file_path"
    ]


def test_where_a_law_holds() -> None:
    assert (
        satisfies_residency("SE", ("EU",))
        and satisfies_residency("EU", ("EEA",))
        and satisfies_residency("NO", ("EEA",))
        and satisfies_residency("US", ())
    )
    assert (
        not satisfies_residency("NO", ("EU",))
        and not satisfies_residency("US", ("EU", "EEA"))
        and not satisfies_residency("EU", ("SE",))
    )


@given(st.text(alphabet=st.sampled_from("ab:-[]{},&*!#|>'\"%@`?~ \n\t0.\x00é\ud800"), max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    documents, problems = read_documents("f.yaml", text)
    assert all(problem.where is not None and problem.where.line >= 1 for problem in problems)
    assert all(() in document.places for document in documents)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abc xyz@/:.-", max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcd", min_size=1), inner, max_size=3),
        max_leaves=12,
    ),
    st.sampled_from(["owners", "price", "objectives", "sources", "stage", "limits", "caps", "includes", "grace", "to"]),
    st.sampled_from(["company", "group", "deployment", "workload", "grant", "source"]),
)
def test_no_value_breaks_the_explanations(value: object, key: str, kind: str) -> None:

    reading = read_files({"f.yaml": json.dumps({"kind": kind, "name": "x", key: value})})
    assert all(problem.hint and problem.code and problem.where for problem in reading.problems)


@given(st.integers(0, len(SMALLEST)), st.integers(0, 40))
def test_every_damaged_workspace_is_read_or_explained(start: int, length: int) -> None:
    text = SMALLEST[:start] + SMALLEST[start + length :]
    for problem in problems_of(text):
        assert problem.code and problem.hint and problem.where


@pytest.mark.parametrize("line", ["limit: " + "9" * 5000, "limit: " + "9" * 5000 + " USD/month"])
def test_digits_without_end_are_told_at_their_place(line: str) -> None:
    text = SMALLEST.replace("limit: 200 USD/month", line)
    with pytest.raises(Invalid) as caught:
        load_files({"acme.yaml": text})
    (problem,) = caught.value.problems
    row = text[: text.index(line)].count("\n") + 1
    assert str(problem).startswith(f"acme.yaml:{row}:") and len(str(problem)) < 400
