"""Prompts: what was served, in which versions; another text is spliced into a workspace and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.blueprint.artifact import decode_prompts, decode_workload, encode
from groundplan.blueprint.model import Blueprint, Workload
from groundplan.catalog.loader import load_files
from groundplan.catalog.prompt_edit import replace_prompt
from groundplan.core.errors import NotFound
from groundplan.release.prompts import (
    ServedPrompts,
    Version,
    VersionsByPrompt,
    add_blueprint,
    find_version,
    line_difference,
    reworded_prompts,
    versions_newest_first,
)

FILES = {
    "a.yaml": """# the company
kind: company   # once
name: acme
---
kind: prompt
name: polite    # said by all
version: 2      # the second
text: |
  Be polite.

  And brief.
owner: ana@acme.example
---
{kind: prompt, name: short, text: "Be short."}
""",
    "b.yaml": """kind: workload
name: one
purpose: x
stage: pilot
owners: {business: ana@acme.example}
prompt: polite@2 # pinned
---
kind: workload
name: two
purpose: x
stage: pilot
owners: {business: ana@acme.example}
prompt: short
""",
    "c.yaml": "kind: prompt\nname: plain\ntext: Be plain.\n",
}
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), include_characters="\n"), min_size=1, max_size=200
).filter(lambda text: text.strip() and "{{" not in text)


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.sampled_from(["polite", "short", "plain"]), st.integers(3, 99))
def test_a_text_is_spliced_and_everything_else_stays(text: str, name: str, version: int) -> None:
    made = replace_prompt(FILES, name, text, version)
    read, before = load_files(made), load_files(FILES)
    assert (read.prompts[name].text, read.prompts[name].version) == (text, version)
    for other in {"polite", "short", "plain"} - {name}:
        assert read.prompts[other] == before.prompts[other]
    assert read.prompts[name].owner == before.prompts[name].owner
    for comment in ("# the company", "# once", "# said by all", "# the second", "# pinned"):
        assert comment in made["a.yaml"] + made["b.yaml"]
    assert ("prompt: polite@2 #" in made["b.yaml"]) == (name != "polite")


def test_what_yaml_would_take_for_a_line_end_or_refuse_stays_as_well() -> None:
    text = "one\u2028two\u2029\ufeff\uffff\U0001ffffthree\u00a0"
    for name in ("polite", "short", "plain"):
        assert load_files(replace_prompt(FILES, name, text, 3)).prompts[name].text == text


def test_lines_stay_lines() -> None:
    made = replace_prompt(FILES, "plain", "First.\n\n  indented\nlast", 2)
    assert made["c.yaml"] == ("version: 2\nkind: prompt\nname: plain\ntext: |-\n  First.\n\n    indented\n  last\n")
    with pytest.raises(NotFound):
        replace_prompt(FILES, "none", "x", 2)


def served(number: int, *said: tuple[str, str, str], stage: str = "pilot") -> ServedPrompts:
    workloads = [
        Workload(
            name=name, purpose="p", stage=stage, sensitivity="internal", audience="employees", residency=[],
            deployments=[], budgets=[], prompt=prompt, system_prompt=text,
        )
        for name, prompt, text in said
    ]  # fmt: skip
    made = Blueprint(
        number=number, company="acme", separation="solo", sites=[], deployments=[], sources=[], workloads=workloads,
        budgets=[], placements=[],
    )  # fmt: skip
    return ServedPrompts(made, datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=number), "operator", f"why {number}")


def versions(history: Sequence[ServedPrompts]) -> dict[str, list[Version]]:
    found: VersionsByPrompt = {}
    for each in history:
        add_blueprint(found, each)
    return versions_newest_first(found)


def test_history_says_where_each_text_was_served_also_where_a_number_was_used_twice() -> None:
    history = [
        served(1, ("one", "polite@1", "Be polite.")),
        served(2, ("one", "polite@1", "Be polite."), ("two", "polite@1", "Be polite.")),
        served(3, ("one", "polite@1", "Be polite, please.")),
        served(4, ("one", "polite@2", "Be brief.")),
        served(5, ("one", "polite@3", "Be polite.")),
    ]
    found = versions(history)["polite"]
    assert [(each.number, each.text, each.blueprints) for each in found] == [
        (3, "Be polite.", (5, 5)),
        (2, "Be brief.", (4, 4)),
        (1, "Be polite, please.", (3, 3)),
        (1, "Be polite.", (1, 2)),
    ]
    assert found[3].workloads == {"one", "two"} and found[3].reason == "why 1"
    assert find_version(found, "2").text == "Be brief." and find_version(found, found[3].digest[:12]).blueprints == (
        5,
        5,
    )
    with pytest.raises(NotFound):
        find_version(found, "9")
    bodies = [encode(each.blueprint) for each in history if isinstance(each.blueprint, Blueprint)]
    read = [replace(each, blueprint=decode_prompts(body)) for each, body in zip(history, bodies, strict=True)]
    assert versions(read) == versions(history), "without all else of the blueprints"
    assert [decode_workload(body, "two") for body in bodies] == [
        None,
        history[1].blueprint.workloads[1],
        None,
        None,
        None,
    ]


def test_a_version_that_says_something_else_than_before_is_told_until_it_is_another_version() -> None:
    history = [
        served(1, ("one", "polite@1", "Be polite."), ("two", "short@1", "Be short.")),
        served(2, ("one", "polite@1", "Be rude."), ("two", "short@1", "Be short.")),
    ]
    (found,) = reworded_prompts(versions(history), history[-1].blueprint)
    assert (found.kind, found.subject, found.severity) == ("governance.prompt_changed", "prompt/polite", "medium")
    assert "under version 1 than in blueprints 1 to 1" in found.message
    before, now = found.detail["before"][:12], found.detail["now"][:12]
    assert f"groundplan prompts diff polite {before} {now}" in found.hint
    known = versions(history)["polite"]
    assert (find_version(known, before).text, find_version(known, now).text) == ("Be polite.", "Be rude."), (
        "what the hint compares"
    )
    live = served(3, ("one", "polite@1", "Be rude."), stage="production")
    assert [each.severity for each in reworded_prompts(versions([*history, live]), live.blueprint)] == ["high"]
    mended = served(4, ("one", "polite@2", "Be rude."))
    assert reworded_prompts(versions([*history, mended]), mended.blueprint) == []
    back = served(5, ("one", "polite@1", "Be polite."))
    assert len(reworded_prompts(versions([*history, back]), back.blueprint)) == 1, "the number means two texts since"


def test_a_difference_is_told_line_by_line() -> None:
    lines = line_difference("Be polite.\nAlways.\n", "Be brief.\nAlways.\nCite.")
    assert [line["sign"] + line["text"] for line in lines] == ["-Be polite.", "+Be brief.", " Always.", "+Cite."]
