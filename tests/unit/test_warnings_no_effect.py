"""What is declared beside something that is not there, or that something else overrules."""

from __future__ import annotations

import pytest
from tests.unit.test_release_plan import BASE, plan_of
from tests.unit.test_warnings_reliability import BOTH, FALLBACK, declared, told

from groundplan.catalog.check import validate_files
from groundplan.release import extras
from groundplan.release.warnings import no_effect

BARE = BASE.replace("sources: [handbook]\n", "")


MORE = "".join(
    f"---\nkind: deployment\nname: {name}\nsite: azure-sweden\nmodel: acme/{name}\ntype: {type}\ncontext: 32k\n"
    f"url: https://acme.example/v1\nprice: {{input: 0 USD/Mtok, output: 0 USD/Mtok{price}}}\n{more}"
    for name, type, price, more in (
        ("pictures", "images", ", images: {any: 0.1 USD}", ""),
        ("voice", "speech", ", characters: 15 USD", ""),
        ("ears", "transcription", ", minute: 0.01 USD", "audio: 30m\n"),
        ("talk", "realtime", ", request: 0.01 USD", ""),
    )
)
ALSO = "also: [pictures, voice, ears, talk]\n"


def warned(text: str) -> list[str]:
    result = plan_of(text)
    assert result.blueprint is not None, result.refusals
    return [f"{each.message.split(' has no effect')[0]} @{each.where}" for each in result.warnings]


@pytest.mark.parametrize(
    ("said", "without"),
    [
        ("cache: {ttl: 5min}\n", ["cache.ttl"]),
        ("cache: {scope: person, answers: off}\n", ["cache.scope"]),
        ("cache: {answers: exact, ttl: 5min, scope: person}\n", []),
        ("keep: {for: 7d, share: 10%}\n", ["keep.for", "keep.share"]),
        ("keep: {for: 7d, content: redacted}\n", []),
        ("review: {within: 10min, by: ana@acme.example}\n", ["review.within", "review.by"]),
        ("review: {before_sending: true, within: 10min}\n", []),
        ("reliability: {retries: {backoff: 1s}}\n", ["reliability.retries.backoff"]),
        ("reliability: {retries: {same: 1, backoff: 1s, max_backoff: 2s}}\n", []),
        ("reliability: {retries: {same: 1, backoff: 9s}}\n", ["reliability.retries.backoff"]),
        ("reliability: {deadline: 40s}\nlimits: {deadline: 50s}\n", ["limits.deadline"]),
        ("reliability: {attempts: 2}\nlimits: {attempts: 4}\n", ["limits.attempts"]),
        ("reliability: {hedge: {after: 70s}}\n", ["reliability.hedge.after"]),
        ("reliability: {hedge: {after: 5s}}\n", []),
        ("guardrails: {entities: [{name: badge, pattern: 'B[0-9]{6}'}]}\n", ["guardrails.entities"]),
        ("guardrails: {input: {personal_data: mask}, entities: [{name: badge, pattern: 'B[0-9]{6}'}]}\n", []),
        ("guardrails: {input: {secrets: block}, on_failure: open}\n", ["guardrails.on_failure"]),
    ],
)
def test_what_a_workload_declares_beside_what_is_not_there_is_told(said: str, without: list[str]) -> None:
    assert sorted(told(said + FALLBACK, BOTH)) == sorted(without)


@pytest.mark.parametrize(
    ("said", "without"),
    [
        ("grounding: {floor: 0.3}\n", ["grounding"]),
        ("needs: {quality: 50%, scanned: true}\n", ["needs.quality", "needs.scanned"]),
        ("guardrails: {passages: {injection: drop}}\n", ["guardrails.passages"]),
    ],
)
def test_what_is_about_passages_of_no_source_is_told(said: str, without: list[str]) -> None:
    found = [each.partition("`")[2].partition("`")[0] for each in warned(BARE.replace("stage: ", f"{said}stage: "))]
    assert found == without
    assert told(said, BASE) == []


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("image_tokens: 1105", "image_tokens"),
        ("audio_tokens: 20", "audio_tokens"),
        ("audio: 30m", "audio"),
        ("weight: 3", "weight"),
        ("{proxy: direct, proxy_key: env:PROXY}", "proxy_key"),
        ("price: {input: 1 USD/Mtok, output: 1 USD/Mtok, characters: 15 USD}", "price.characters"),
        ("price: {input: 1 USD/Mtok, output: 1 USD/Mtok, images: {any: 0.1 USD}}", "price.images"),
        ("price: {input: 1 USD/Mtok, output: 1 USD/Mtok, image: 0.1 USD}", "price.image"),
        ("price: {input: 1 USD/Mtok, output: 1 USD/Mtok, shortest: 10s}", "price.shortest"),
    ],
)
def test_what_a_deployment_cannot_use_is_told_with_its_place(said: str, field: str) -> None:
    said = said.strip("{}").replace(", ", "\n") if said.startswith("{") else said
    text = BASE.replace("name: gpt-eu\n", f"name: gpt-eu\n{said}\n", 1)
    line = text.split("\n").index(said.split("\n")[-1]) + 1
    (only,) = warned(text)
    assert only.startswith(f"`{field}` of deployment gpt-eu @a.yaml:{line}:")


def test_embeddings_have_no_cap_and_no_other_endpoints() -> None:
    text = (
        f"{BASE}---\nkind: deployment\nname: e\nsite: azure-sweden\nmodel: openai/text-embedding-3-small\n"
        "type: embeddings\nurl: https://acme.example/e\nserves: [responses, batches]\ncap_field: max_tokens\n"
    )
    assert [each.split("`")[1] for each in warned(text)] == ["cap_field", "serves", "type"]


def test_a_weight_is_heeded_where_a_workload_shares_its_calls() -> None:
    text = BOTH.replace("name: gpt-eu\n", "name: gpt-eu\nweight: 3\n", 1)
    assert warned(declared("reliability: {balance: weighted}\n", text)) == []
    assert len(warned(declared("reliability: {balance: latency}\n", text))) == 1


def test_a_password_for_no_proxy_and_a_tool_that_is_not_used_are_told() -> None:
    text = BASE.replace("kind: company\n", "kind: company\nproxy_key: env:PROXY\n", 1)
    tool = (
        "---\nkind: tool\nname: crm\nurl: https://crm.example/mcp\nowner: ana@acme.example\nworkloads: [assistant]\n"
        "tools: [read_*]\ndangerous: [delete_all, read_all, 'resource:x']\n"
    )
    assert [each.split(" @")[0] for each in warned(text + tool)] == [
        "`proxy_key` of company acme", "`dangerous` of tool crm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "stage: pilot",
            "stage: pilot\nlimits: {max_cost_per_call: 0.001 USD}",
            "`max_cost_per_call` of assistant ($0.00100)",
        ),
        ("200 USD/month", "0.001 USD/day", "the budget assistant (0.001 USD/day)"),
        ("200 USD/month", "0 USD/month", "the budget assistant (0 USD/month)"),
    ],
)
def test_what_has_no_room_for_an_ordinary_call_is_told_before_the_first_one(old: str, new: str, said: str) -> None:
    result = plan_of(BASE.replace(old, new, 1))
    (warning,) = result.warnings
    assert warning.code == "too_small" and warning.message.startswith(said) and "1024" in warning.message
    assert warning.where is not None and result.blueprint is not None


@pytest.mark.parametrize(("more", "fits"), [("context: 4k\n", False), ("context: 8k\n", True),
                                            ("context: 4k\nmax_output: 1k\n", True), ("", True)])  # fmt: skip
def test_a_context_that_an_answer_alone_fills_is_told(more: str, *, fits: bool) -> None:
    """4096 tokens are the longest answer unless said."""
    result = plan_of(BASE.replace("kind: deployment\nname: gpt-eu\n", f"kind: deployment\nname: gpt-eu\n{more}"))
    assert [(each.code, "context: 4000" in each.message) for each in result.warnings] == (
        [] if fits else [("too_small", True)]
    )


@pytest.mark.parametrize(("limit", "fits"), [("tokens: 1k/minute", False), ("tokens: [2k/minute, 50/hour]", False),
                                             ("tokens: 2k/minute", True), ("cost: 0.0001 USD/day", False),
                                             ("cost: 1 USD/day", True), ("requests: 1/day", True)])  # fmt: skip
@pytest.mark.parametrize("covers", ["company", "workload/assistant", "user", "deployment/gpt-eu"])
def test_a_limit_that_no_call_fits_is_told(limit: str, covers: str, *, fits: bool) -> None:
    result = plan_of(f"{BASE}---\nkind: limit\nname: some\ncovers: {covers}\n{limit}\n")
    assert [each.code for each in result.warnings] == ([] if fits else ["too_small"])


@pytest.mark.parametrize(
    ("said", "without"),
    [
        ("reliability: {balance: weighted}\nrouting: {within: 800ms}\n", ["balance: weighted"]),
        ("reliability: {balance: weighted}\nrouting: {by: rules, rules: [{name: a, use: gpt-us, longer: 9}]}\n",
         ["balance: weighted"]),
        ("placement: {ramp: {steps: [10%], every: 1d}}\nrouting: {within: 800ms}\n", ["ramp"]),
        ("routing: {within: 800ms}\n", []),
    ],
)  # fmt: skip
def test_what_a_routing_decides_is_shared_by_no_balance_and_no_ramp(said: str, without: list[str]) -> None:
    assert told(said, BOTH) == without


def test_production_ends_by_no_date_and_says_so() -> None:
    item = validate_files({"a.yaml": BASE.replace("stage: pilot", "stage: pilot\nlimits: {expires: 2027-01-31}", 1)})
    pilot = item.workloads["assistant"]
    assert list(no_effect.workload_warnings(item, pilot)) == []
    (only,) = no_effect.workload_warnings(item, pilot.model_copy(update={"stage": "production"}))
    assert only.message.startswith("`limits.expires` of assistant") and only.where is not None


def test_what_is_used_by_nobody_is_told() -> None:
    team = "---\nkind: team\nname: sales\n---\nkind: budget\nname: sales\ncovers: team/sales\nlimit: 5 USD/day\n"
    limit = "---\nkind: limit\nname: many\ncovers: team/sales\nrequests: 5/day\n"
    text = BASE + MORE + team + limit
    assert [each.split(" @")[0] for each in warned(text)] == [
        *(f"`type` of deployment {name}" for name in ("ears", "pictures", "talk", "voice")),
        "`covers` of budget sales", "`covers` of limit many",
    ]  # fmt: skip
    assert warned(declared(f"{ALSO}team: sales\n", text)) == []


def test_a_cap_above_what_is_ever_answered_is_told() -> None:
    high = BASE.replace("stage: pilot", "stage: pilot\nlimits: {max_output: 8000}", 1)
    (told_so,) = plan_of(high).warnings
    assert "gpt-eu answers with at most 4096 tokens" in told_so.message and told_so.code == "no_effect"
    assert plan_of(high.replace("name: gpt-eu\n", "name: gpt-eu\nmax_output: 32k\n", 1)).warnings == ()


@pytest.mark.parametrize(
    ("said", "never"),
    [
        ("", []),
        ("review: {before_sending: true}\n", ["pictures", "voice", "talk"]),
        ("review: {before_sending: true, share: 10%}\n", ["talk"]),
        ("guardrails: {input: {secrets: block}}\n", ["ears"]),
        ("guardrails: {input: {secrets: block}, unchecked: audio}\n", []),
        ("guardrails: {output: {secrets: block}}\n", ["pictures"]),
        ("guardrails: {output: {secrets: block}, mode: shadow}\n", []),
        ("guardrails: {output: {languages: en}}\n", ["pictures", "voice", "talk"]),
        ("guardrails: {output: {languages: en}, unchecked: [image, audio]}\n", ["talk"]),
        ("guardrails: {input: {presidio: flag}, unchecked: audio}\n", ["talk"]),
    ],
)
def test_what_a_workload_names_and_always_refuses_is_told(
    said: str, never: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "missing_extras", lambda _: [])
    warnings = plan_of(declared(said + ALSO, BASE + MORE)).warnings
    assert [each.message.split(" ")[3] for each in warnings if each.code == "never_answered"] == never
    assert all(each.where is not None for each in warnings)
