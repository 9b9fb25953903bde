"""Rules between documents, the example company, the schema, and `init`."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from groundplan.catalog.check import check, validate, validate_files
from groundplan.catalog.loader import load_files, read_files
from groundplan.catalog.model import DUTIES, KINDS
from groundplan.catalog.reader import read_documents
from groundplan.catalog.scaffold import init
from groundplan.catalog.schema import json_schema
from groundplan.core.errors import Conflict, Invalid, Problem
from groundplan.core.money import parse_usd
from groundplan.release.compile import knowledge
from groundplan.testing.workspace_reference import REFERENCE_PATH, SCHEMA_PATH, editor_hint, reference

ROOT = Path(__file__).parents[2]
COMPANY = ROOT / "examples" / "company"

BASE = """\
kind: company
name: acme
---
kind: site
name: cloud
type: cloud
jurisdiction: EU
---
kind: site
name: us
type: private
jurisdiction: US
---
kind: deployment
name: gpt
site: cloud
model: openai/gpt-4.1-mini
url: https://acme.example/v1
---
kind: deployment
name: far
site: us
model: openai/gpt-4.1-mini
url: https://us.example/v1
---
kind: deployment
name: vectors
site: cloud
type: embeddings
model: openai/text-embedding-3-small
url: https://acme.example/v1
---
kind: group
name: hr
members: [hana]
---
kind: person
name: hana
email: hana@acme.example
---
kind: source
name: handbook
path: handbook
sensitivity: internal
owner: hana
readers: [hr]
---
kind: budget
name: answers
covers: workload/answers
limit: 5 USD/day
---
kind: workload
name: answers
purpose: Answer
stage: pilot
sources: [handbook]
owners: {business: hana}
"""


def find_problems(text: str, **options: Any) -> tuple[Problem, ...]:
    return check(load_files({"a.yaml": text}), **options)


def unpriced(_model: str) -> bool:
    """A price list that knows nothing."""
    return False


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_the_base_is_in_order() -> None:
    assert find_problems(BASE, known_price=lambda model: model.startswith("openai/")) == ()


@pytest.mark.parametrize(
    ("old", "new", "code", "hint"),
    [
        ("sources: [handbook]", "sources: [handbok]", "unknown_source", "Did you mean handbook?"),
        ("site: cloud\nmodel", "site: clod\nmodel", "unknown_site", "Did you mean cloud?"),
        ("readers: [hr]", "readers: [hrr]", "unknown_group", "Did you mean hr?"),
        ("readers: [hr]", "readers: [evryone]", "unknown_group", "Did you mean everyone?"),
        ("readers: [hr]", "readers: [hr, '!ben@acme.example']", "unknown_group", ""),
        ("covers: workload/answers", "covers: workload/answer", "unknown_workload", "Did you mean answers?"),
        ("members: [hana]", "members: [hanna]", "unknown_person", "Did you mean hana?"),
        ("owner: hana", "owner: hr", "not_a_person", "Name a person."),
        ("owner: hana", "owner: zoe", "unknown_person", "Write an e-mail address"),
        ("{business: hana}", "{business: everyone}", "not_a_person", "Name a person."),
        ("{business: hana}", "{business: [hana, hana@acme.example]}", "person_twice", "Keep one."),
        ("{business: hana}", "{security: hana}", "no_business_owner", "Nothing runs without one"),
        ("stage: pilot", "stage: production", "missing_duties", "Name somebody for each"),
        ("covers: workload/answers", "covers: company", "no_budget", "Add kind: budget, covers: workload/answers"),
        ("sensitivity: internal", "sensitivity: restricted", "source_too_sensitive", "Raise the workload"),
        ("stage: pilot", "stage: pilot\nresidency: [EU]\nfallbacks: [far]", "outside_residency", "Name a deployment"),
        ("stage: pilot", "stage: pilot\nsensitivity: restricted\ndeployments: [gpt]", "site_not_trusted", "Name a"),
        ("stage: pilot", "stage: pilot\ndeployments: [vectors]", "wrong_deployment_type", "Name a deployment with"),
        ("stage: pilot", "stage: pilot\ndeployments: [gpt]\nfallbacks: [gpt]", "deployment_twice", "Name each once."),
        ("stage: pilot", "stage: pilot\nsensitivity: restricted\ngrace: 10s", "grace_restricted", "Remove grace."),
        ("stage: pilot", "stage: pilot\nworkflow: nothing", "unknown_workflow", "No workflow is declared."),
        ("stage: pilot", "stage: pilot\nteam: hr", "unknown_team", "No team is declared."),
        ("url: https://acme.example/v1", "url: local:scripted-us", "unknown_local", "The site of this deployment"),
        ("url: https://acme.example/v1", "url: local:nothing", "unknown_local", "Known: local:embedded"),
        ("name: hr\n", "name: hr\nincludes: [hr]\n", "cyclic_group", "Remove one"),
        ("name: acme", "name: acme\nseparation: solo\nowners: {data: zoe@acme.example}", "solo_with_others", "Write"),
    ],
)
def test_each_rule(old: str, new: str, code: str, hint: str) -> None:
    assert old in BASE
    problems = find_problems(BASE.replace(old, new, 1))
    matching = [problem for problem in problems if problem.code == code]
    assert len(matching) == 1, [str(problem) for problem in problems]
    assert matching[0].hint.startswith(hint)
    assert matching[0].where is not None and matching[0].where.file == "a.yaml"


def test_places_point_at_the_value() -> None:
    text = BASE.replace("sources: [handbook]", "sources: [handbook, other]")
    (problem,) = find_problems(text)
    assert str(problem.where) == f"a.yaml:{line_of(text, 'sources: [')}:21"


def test_a_price_may_be_known_declared_or_missing() -> None:
    missing = find_problems(BASE, known_price=unpriced)
    assert {problem.code for problem in missing} == {"price_missing"} and len(missing) == 3
    declared = BASE + "---\nkind: model\nname: openai/gpt-4.1-mini\nprice: free\n"
    assert len(find_problems(declared, known_price=unpriced)) == 1
    twice = "price:\n- {input: 1 USD/Mtok, output: 1 USD/Mtok}\n- {input: 2 USD/Mtok, output: 2 USD/Mtok}\n"
    (problem,) = find_problems(BASE + "---\nkind: model\nname: x\n" + twice)
    assert problem.code == "price_twice"


ALONE = """\
kind: company
name: acme
---
kind: site
name: s
type: cloud
jurisdiction: EU
---
kind: deployment
name: d
site: s
model: acme/x
url: https://h.example/v1
type: TYPE
"""
SERVED = """\
---
kind: workload
name: w
purpose: P
stage: pilot
owners: {business: hana@acme.example}
MORE
---
kind: budget
name: w
covers: workload/w
limit: 5 USD/day
"""


@pytest.mark.parametrize(
    ("type", "unit"),
    [("speech", "characters: "), ("transcription", "minute: "), ("images", "images: {any: "), ("rerank", "request: ")],
)
def test_a_missing_price_is_asked_for_in_the_unit_of_its_type(type: str, unit: str) -> None:
    (problem,) = find_problems(ALONE.replace("TYPE", type), known_price=unpriced)
    assert problem.code == "price_missing" and unit in problem.hint


@pytest.mark.parametrize(
    ("url", "listed"),
    [("https://api.openai.com/v1", "openai/m"), ("https://a.openai.azure.com/openai/v1", "azure/m"),
     ("http://127.0.0.1:9/v1", "openai/m"), ("http://127.0.0.1:9/v1", "google/m")],
)  # fmt: skip
def test_a_model_that_the_list_has_with_its_provider_is_told_as_that(url: str, listed: str) -> None:
    files = ALONE.replace("TYPE", "embeddings").replace("acme/x", "m").replace("https://h.example/v1", url)
    (problem,) = find_problems(files, known_price=lambda model: model == listed)
    offered = f"Write model: {listed}, whose price is known; or price: " in problem.hint
    assert problem.code == "price_missing" and offered == (not listed.startswith("google"))


def test_who_asks_no_chat_model_needs_none() -> None:
    """A line that only speaks or listens, an index that only embeds."""
    text = ALONE.replace("TYPE", "transcription\nprice: free") + SERVED
    assert find_problems(text.replace("MORE", "also: [d]")) == ()
    (problem,) = find_problems(text.replace("MORE", "also: [dd]"))
    assert problem.code == "unknown_deployment" and "Did you mean d?" in problem.hint
    for more in ("value: much", "also: [d]\nprompt: hello\n---\nkind: prompt\nname: hello\ntext: Hello"):
        (problem,) = find_problems(text.replace("MORE", more))
        assert problem.code == "no_deployment" and "under also" in problem.hint


def test_two_budgets_for_one_period() -> None:
    again = "---\nkind: budget\nname: more\ncovers: workload/answers\nlimit: 6 USD/{}\n"
    assert find_problems(BASE + again.format("month")) == ()
    (problem,) = find_problems(BASE + again.format("day"))
    assert problem.code == "budget_twice" and "answers at a.yaml" in problem.message


def test_a_name_means_one_group_and_an_address_one_person() -> None:
    more = "---\nkind: team\nname: hr\n---\nkind: group\nname: everyone\n"
    more += "---\nkind: person\nname: h\nemail: Hana@acme.example\n"
    assert {problem.code for problem in find_problems(BASE + more)} == {
        "duplicate_name",
        "reserved_name",
        "duplicate_email",
    }
    (problem,) = find_problems(BASE + "---\nkind: team\nname: public\n")
    assert problem.code == "reserved_name"


def test_a_source_may_be_read_by_everybody() -> None:
    source = "---\nkind: source\nname: site\npath: ./site\nsensitivity: public\nowner: hana\nreaders: [public]\n"
    assert "unknown_group" not in {problem.code for problem in find_problems(BASE + source)}
    grant = "---\nkind: grant\nname: open\nto: [public]\non: source/site\nallows: read\nreason: x\n"
    assert "unknown_group" in {problem.code for problem in find_problems(BASE + source + grant)}


def test_a_company_duty_counts_for_production() -> None:
    duties = ", ".join(f"{duty}: hana" for duty in DUTIES if duty != "business")
    text = BASE.replace("stage: pilot", "stage: production").replace(
        "name: acme\n", f"name: acme\nowners: {{{duties}}}\n"
    )
    assert find_problems(text) == ()
    assert load_files({"a.yaml": text}).duty_holders("answers")["compliance"] == ("hana@acme.example",)


def test_what_is_not_served_needs_neither_owner_nor_budget() -> None:
    for stage in ("proposed", "retired"):
        assert (
            find_problems(f"kind: company\nname: a\n---\nkind: workload\nname: w\npurpose: P\nstage: {stage}\n") == ()
        )
    alone = find_problems("kind: company\nname: a\n---\nkind: workload\nname: w\npurpose: P\nstage: pilot\n")
    assert {problem.code for problem in alone} == {"no_business_owner", "no_budget", "no_deployment"}


def test_form_and_rules_are_told_together_without_false_alarms() -> None:
    text = BASE.replace("sensitivity: internal", "sensitivity: intrnal").replace("{business: hana}", "{business: zoe}")
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": text})
    assert [problem.code for problem in caught.value.problems] == ["unknown_value", "unknown_person"]
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": text, "b.yaml": "kind: ["})
    assert "unknown_person" not in {problem.code for problem in caught.value.problems}


def test_names_in_a_broken_document_are_told_with_what_breaks_it() -> None:
    """A second round of mistakes after the first one was mended would not be all at once."""
    text = BASE.replace("stage: pilot\n", "stage: pilot\nstagee: pilot\nobjectives: {latncy: 1s}\nfallbacks: [fra]\n")
    text = text.replace("{business: hana}", "{business: [zoe], securty: [hana]}").replace("[handbook]", "[handbok]")
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": text})
    assert sorted(problem.code for problem in caught.value.problems) == [
        "unknown_deployment", "unknown_key", "unknown_key", "unknown_key", "unknown_person", "unknown_source",
    ]  # fmt: skip
    assert len({str(problem.where) for problem in caught.value.problems}) == 6
    missing = BASE.replace("purpose: Answer\n", "").replace("{business: hana}", "{business: zoe}")
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": missing})
    assert [problem.code for problem in caught.value.problems] == ["missing_key"], "no guess at what is not there"


def test_owners_left_empty_are_no_owners() -> None:
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": BASE.replace("owners: {business: hana}", "owners:\n  # business: hana")})
    (problem,) = caught.value.problems
    assert problem.code == "no_business_owner" and problem.where is not None


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_a_cycle_is_found_if_and_only_if_there_is_one(edges: list[tuple[int, int]]) -> None:
    includes: dict[int, set[int]] = {node: set() for node in range(8)}
    for one, other in edges:
        includes[one].add(other)
    groups = [
        f"kind: group\nname: g{node}\nincludes: [{', '.join(f'g{n}' for n in sorted(others))}]"
        for node, others in includes.items()
    ]
    problems = find_problems("kind: company\nname: a\n---\n" + "\n---\n".join(groups))

    def reachable(start: int) -> set[int]:
        seen: set[int] = set()
        waiting = list(includes[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += includes[node]
        return seen

    assert {problem.code for problem in problems} <= {"cyclic_group"}
    assert bool(problems) == any(node in reachable(node) for node in includes)
    for problem in problems:
        names = problem.message.partition(": ")[2].split(" -> ")
        assert names[0] == names[-1]
        assert all(int(b[1:]) in includes[int(a[1:])] for a, b in pairwise(names))


def test_a_long_chain_of_groups_is_no_problem() -> None:
    chain = "\n---\n".join(f"kind: group\nname: g{i}\nincludes: [g{i + 1}]" for i in range(1500))
    assert find_problems(f"kind: company\nname: a\n---\n{chain}\n---\nkind: group\nname: g1500\n") == ()


def test_the_example_company_is_in_order() -> None:
    workspace = validate(COMPANY, known_price=lambda model: model.startswith("openai/"))
    stages = {name: doc.stage for name, doc in workspace.workloads.items()}
    assert stages["staff-assistant"] == stages["handbook-answers"] == "pilot"
    assert stages["support-assistant"] == stages["finance-analytics"] == "production"
    assert stages["line-inspector"] == "proposed"
    assert set(workspace.duty_holders("support-assistant")) == set(DUTIES)
    assert workspace.budgets_of("staff-assistant") == ("company", "people-services", "staff-assistant")
    assert workspace.names_by_email()["ben@acme.example"] == "Ben Okafor"
    (flat,) = workspace.deployments["flat-rate"].price
    assert workspace.budgets["budget-check"].limit.amount == 100 * flat.request


def test_the_example_documents_are_of_every_sort() -> None:
    documents = {path.relative_to(COMPANY).as_posix(): path.read_bytes() for path in COMPANY.rglob("*.md")}
    assert 12 <= len(documents) <= 20
    assert documents["handbook/remote-work.md"] == documents["handbook/remote-work-copy.md"]
    reviews = {name: re.search(rb"review_by: (\d{4})", text) for name, text in documents.items()}
    outdated = [name for name, match in reviews.items() if match and int(match[1]) < 2026]
    assert outdated == ["handbook/travel-expenses-2021.md"]
    assert b"Each parent gets 120 days of paid parental leave" in documents["handbook/parental-leave.md"]
    assert b"readers: [hr]" in documents["hr/salary-bands.md"]


def test_the_published_schema_is_the_current_one() -> None:
    assert (ROOT / SCHEMA_PATH).read_text(encoding="utf-8") == json.dumps(
        json_schema(), indent=2, ensure_ascii=False
    ) + "\n"


def test_the_schema_tells_the_kinds_apart() -> None:
    schema = json_schema()
    named = [reference["$ref"].rpartition("/")[2] for reference in schema["oneOf"]]
    assert [schema["$defs"][name]["properties"]["kind"]["const"] for name in named] == list(KINDS)
    for name in named:
        definition = schema["$defs"][name]
        assert definition["additionalProperties"] is False
        assert "kind" in definition["required"] and definition["description"]
    text = json.dumps(schema)
    assert '"null"' not in text
    workload = schema["$defs"]["WorkloadDoc"]["properties"]
    assert workload["stage"]["enum"] == ["proposed", "experiment", "pilot", "production", "retired"]
    assert schema["$defs"]["DeploymentDoc"]["properties"]["price"]["anyOf"][0] == {"const": "free"}


def test_examples_name_the_schema_where_it_is() -> None:
    for file in COMPANY.rglob("*.yaml"):
        first = file.read_text(encoding="utf-8").splitlines()[0]
        location = first.partition("=")[2]
        assert first == editor_hint(location)
        assert (file.parent / location).resolve() == ROOT / SCHEMA_PATH


def test_init_on_the_embedded_model(tmp_path: Path) -> None:
    files = init(tmp_path / "mine")
    assert [file.name for file in files] == ["groundplan.yaml", "assistant.yaml"]
    workspace = validate(tmp_path / "mine", known_price=unpriced)
    assert list(workspace.workloads) == ["assistant"]
    assert workspace.deployments["main"].url == "local:embedded"
    assert workspace.company.separation == "solo" and workspace.company.caps.calls_per_day is None
    assert set(workspace.duty_holders("assistant")) == set(DUTIES) and len(workspace.names_by_email()) == 1
    assert sum(file.read_text().count("#") for file in files) > 10


def test_init_on_what_the_user_has(tmp_path: Path) -> None:
    init(
        tmp_path,
        upstream="http://127.0.0.1:9999/v1",
        upstream_model="scripted",
        upstream_key="env:UPSTREAM_KEY",
        price="0/10",
        budget="0.05",
        operator_email="Me@Acme.example",
    )
    workspace = validate(tmp_path, known_price=unpriced)
    deployment = workspace.deployments["main"]
    assert (deployment.url, deployment.name_upstream) == ("http://127.0.0.1:9999/v1", "scripted")
    assert deployment.key == "env:UPSTREAM_KEY"
    assert (deployment.price[0].input, deployment.price[0].output) == (0, parse_usd("10"))
    assert workspace.budgets["assistant"].limit.amount == parse_usd("0.05")
    assert workspace.sites["here"].type == "private"
    assert list(workspace.names_by_email()) == ["me@acme.example"]
    file = tmp_path / "groundplan.yaml"
    file.write_text(file.read_text().replace("# accepts: [image] ", "image_tokens: 2500\naccepts: [image] "))
    pictures = validate(tmp_path, known_price=unpriced).deployments["main"]
    assert (list(pictures.accepts), pictures.image_tokens) == (["image"], 2500), "as the comment says"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"upstream": "https://host/v1"}, "model_missing"),
        ({"upstream_model": "x"}, "upstream_missing"),
        ({"upstream": "https://host/v1", "upstream_model": "x", "price": "1"}, "price_syntax"),
        ({"upstream": "https://host/v1", "upstream_model": "x", "price": "a/b"}, "money_syntax"),
        ({"upstream": "https://u:p@host/v1", "upstream_model": "x"}, "invalid_value"),
        ({"upstream": "https://host/v1", "upstream_model": "x\nname: y"}, "invalid_value"),
        ({"upstream": "https://[bad/v1", "upstream_model": "x"}, "invalid_value"),
        ({"upstream": "https://host/v1", "upstream_model": "x", "upstream_key": "hunter2"}, "secret_not_reference"),
        ({"budget": "lots"}, "money_syntax"),
        ({"budget": "5 USD/fortnight"}, "money_syntax"),
        ({"operator_email": "nobody"}, "email_syntax"),
    ],
)
def test_init_refuses_and_writes_nothing(tmp_path: Path, options: dict[str, str], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        init(tmp_path / "w", **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "w").exists()
    assert caught.value.where is None and not any(problem.where for problem in caught.value.problems), (
        "no file is there"
    )
    if caught.value.problems:
        assert all(problem.message.startswith("--upstream") for problem in caught.value.problems)


def test_init_asks_for_a_price_that_nobody_knows(tmp_path: Path) -> None:
    options: dict[str, Any] = {"upstream": "https://host.example/v1", "upstream_model": "mystery"}
    with pytest.raises(Invalid, match="--price") as caught:
        init(tmp_path, known_price=unpriced, **options)
    assert caught.value.code == "price_missing"
    init(tmp_path, known_price=unpriced, price="free", **options)
    assert validate(tmp_path, known_price=unpriced).deployments["main"].price[0].free


def test_init_touches_no_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Conflict, match="folder_not_empty"):
        init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(Conflict, match="folder_not_empty"):
        init(tmp_path / "notes.txt")


def test_the_published_reference_is_the_current_one() -> None:
    text = (ROOT / REFERENCE_PATH).read_text(encoding="utf-8")
    assert text == reference()
    assert all(f"### `{kind}`" in text for kind in KINDS)
    links = set(re.findall(r"\(#([a-z-]+)\)", text))
    assert links <= {line[4:].replace(" ", "-") for line in text.splitlines() if line.startswith("### ")}


def test_the_schema_accepts_what_is_right_and_refuses_what_is_not() -> None:
    validator = Draft202012Validator(json_schema())
    for file in sorted(COMPANY.rglob("*.yaml")):
        documents, problems = read_documents(file.name, file.read_text(encoding="utf-8"))
        assert not problems
        for document in documents:
            assert list(validator.iter_errors(document.value)) == [], document.value["name"]
    for wrong in (
        {"kind": "site", "name": "here", "type": "cloud"},
        {"kind": "budget", "name": "b", "covers": "company", "limit": "5 USD"},
        {"kind": "person", "name": "zoe", "email": "zoe@acme.example", "phone": "1"},
        {"kind": "nothing", "name": "x"},
    ):
        assert not validator.is_valid(wrong)


def test_checks_of_a_source_reach_the_blueprint(tmp_path: Path) -> None:
    shutil.copytree(COMPANY, tmp_path / "company")
    with (tmp_path / "company/knowledge.yaml").open("a", encoding="utf-8") as file:
        file.write(
            "---\nkind: source\nname: readings\nconnector: {type: push}\nsensitivity: internal\nowner: ana\n"
            "readers: [everyone]\nchecks:\n  - {column: id, unique: true, nulls: 0%}\n"
            "  - {column: bar, at_most: 16, one_of: ['1', '2'], matches: '[0-9]+', fresh: 2d}\n"
        )
    workspace = validate(tmp_path / "company")
    source = knowledge.compile_source(workspace, workspace.sources["readings"])
    assert source.checks == [
        {"column": "id", "unique": True, "nulls": 0.0},
        {"column": "bar", "at_most": 16, "one_of": ["1", "2"], "matches": "[0-9]+", "fresh": 172_800_000},
    ]


@pytest.mark.parametrize("kind", ["[]", "{}", "[[1, 2]]", "{a: {b: [c]}}", "7"])
def test_a_kind_that_is_no_word_is_told_at_its_place(kind: str) -> None:
    problems = read_files({"a.yaml": f"---\nkind: {kind}\nname: acme\n"}).problems
    assert [each.where and each.where.line for each in problems if each.code == "kind_unknown"] == [2]
