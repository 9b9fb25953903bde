"""LiteLLM's fallbacks for every model name without its own: which list its router takes, and what the import says."""

from __future__ import annotations

import pytest
from tests.unit.test_import_litellm import finding_places, imported, known, models

from groundplan.catalog.check import validate_files
from groundplan.catalog.imports.verdict import CARRIED, NO_EQUAL


@pytest.mark.parametrize(
    ("settings", "taken", "told"),
    [
        ("router_settings: {fallbacks: [{'*': [b]}], default_fallbacks: [c]}", ["c-openai"], {
            "router_settings.fallbacks": (NO_EQUAL, "takes router_settings.default_fallbacks in place of this"),
            "router_settings.default_fallbacks": (CARRIED, "of each workload that has none"),
        }),
        ("litellm_settings: {fallbacks: [{'*': [c]}], default_fallbacks: [b]}", ["b-openai"], {
            "litellm_settings.fallbacks": (NO_EQUAL, "takes litellm_settings.default_fallbacks"),
            "litellm_settings.default_fallbacks": (CARRIED, "of each workload that has none"),
        }),
        ("router_settings: {default_fallbacks: [c]}\nlitellm_settings: {default_fallbacks: [b]}", ["c-openai"], {
            "router_settings.default_fallbacks": (CARRIED, "of each workload that has none"),
            "litellm_settings.default_fallbacks": (NO_EQUAL, "takes router_settings.default_fallbacks"),
        }),
        ("router_settings: {default_fallbacks: []}\nlitellm_settings: {default_fallbacks: [b]}", ["b-openai"], {
            "router_settings.default_fallbacks": (NO_EQUAL, "takes litellm_settings.default_fallbacks"),
            "litellm_settings.default_fallbacks": (CARRIED, "of each workload that has none"),
        }),
        ("router_settings: {fallbacks: [{'*': [b]}], default_fallbacks: []}", [], {
            "router_settings.fallbacks": (NO_EQUAL, "takes router_settings.default_fallbacks"),
            "router_settings.default_fallbacks": (CARRIED, "of each workload that has none"),
        }),
        ("router_settings: {fallbacks: [{'*': [b]}]}", ["b-openai"], {
            "router_settings.fallbacks": (CARRIED, "of each workload that has none"),
        }),
    ],
)  # fmt: skip
def test_one_list_of_fallbacks_holds_for_every_other_model(
    settings: str, taken: list[str], told: dict[str, tuple[str, str]]
) -> None:
    """LiteLLM's router appends `default_fallbacks` to `fallbacks` as one more `*`, and takes the last one."""
    text = models(a="{model: openai/gpt-4o}", b="{model: openai/o3}", c="{model: openai/gpt-4.1}")
    verdict = imported(f"{text}\n{settings}\n", owners={"": "a@b.example"})
    workloads = validate_files(verdict.files, known_price=known).workloads
    assert list(workloads["a"].fallbacks) == taken
    found = {f.what: (f.state, f.here) for f in verdict.findings if f.what in told}
    assert found.keys() == told.keys()
    for what, (state, here) in told.items():
        assert found[what][0] == state and here in found[what][1]


def test_of_two_lists_for_every_other_model_the_last_is_taken() -> None:
    text = models(a="{model: openai/gpt-4o}", b="{model: openai/o3}", c="{model: openai/gpt-4.1}")
    text += "\nrouter_settings: {fallbacks: [{'*': [b]}, {'*': [c]}]}\n"
    verdict = imported(text, owners={"": "a@b.example"})
    workloads = validate_files(verdict.files, known_price=known).workloads
    assert list(workloads["a"].fallbacks) == ["c-openai"]
    assert [len(finding_places(verdict, state, ".fallbacks")) for state in (CARRIED, NO_EQUAL)] == [1, 1]
