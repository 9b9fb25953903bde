"""The benchmark of metering: what it prints of a file of recorded bodies, what it explains, and what it refuses."""

from __future__ import annotations

import gzip
import json
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import pytest
from benchmarks import metering

USAGE = {"input_tokens": 100, "output_tokens": 10}
PRICES: dict[str, Any] = {"input_price": "0.00004", "output_price": "0.000016"}


def recorded(usage: dict[str, int] = USAGE, prices: dict[str, Any] = PRICES, **more: Any) -> dict[str, Any]:
    reported = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, **more}
    extractor = {"provider_id": "openai", "api_flavor": "chat", **prices}
    return {
        "body": {"model": "gpt-4.1-mini", "usage": reported},
        "extracted": [{"usage": usage, "extractors": [extractor]}],
    }


def run_benchmark(folder: Path, capsys: pytest.CaptureFixture[str], *bodies: dict[str, Any]) -> dict[str, Any]:
    path = folder / "usages.json.gz"
    path.write_bytes(gzip.compress(json.dumps(bodies).encode()))
    code = metering.main([str(path), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == int(not found["usage_right"] == found["price_right"] == found["bodies"])
    return found


def test_bodies_whose_usage_and_price_are_as_expected_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_numbers = {"input_price": 0.00004, "output_price": 0.000016}
    found = run_benchmark(tmp_path, capsys, recorded(), recorded(prices=as_numbers), recorded(prices={}))
    assert {name: found[name] for name in ("bodies", "usage_right", "price_right")} == {
        "bodies": 3, "usage_right": 3, "price_right": 3,
    }  # fmt: skip
    assert (found["readings"], found["prices"], found["explained"], found["wrong"]) == (3, 2, [], [])


def test_a_usage_and_a_price_that_differ_are_wrong_each_for_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = recorded({**USAGE, "output_tokens": 11}, {})
    nameless = recorded()
    del nameless["body"]["model"]
    found = run_benchmark(tmp_path, capsys, other, recorded(prices={**PRICES, "output_price": "0.000017"}), nameless)
    assert (found["bodies"], found["usage_right"], found["price_right"]) == (3, 2, 1)
    assert [each["what"] for each in found["wrong"]] == ["usage", "price", "price"]


@pytest.mark.parametrize("model", [123, {"name": "gpt-4.1-mini"}, ["gpt-4.1-mini"], None, ""])
def test_a_body_whose_model_is_no_name_has_the_price_of_the_recorded_one_or_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Any
) -> None:
    strange = recorded()
    strange["body"]["model"] = model
    found = run_benchmark(tmp_path, capsys, strange, {**strange, "model": "gpt-4.1-mini"})
    assert (found["bodies"], found["usage_right"], found["price_right"]) == (2, 2, 1)
    assert [(each["body"], each["why"]) for each in found["wrong"]] == [(0, "no price is known")]


def test_a_class_that_the_body_states_and_the_expectation_leaves_out_is_explained_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_benchmark(tmp_path, capsys, recorded(prices={}, prompt_tokens_details={"cached_tokens": 60}))
    assert (found["usage_right"], found["wrong"]) == (1, [])
    (only,) = found["explained"]
    assert only["read"] == {"cache_read_tokens": 60}
    assert only["stated_at"] == {"cache_read_tokens": "usage.prompt_tokens_details.cached_tokens"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}",
        b'[{"body": 3}]',
        b'[{"body": {}, "extracted": [{"usage": {"input_tokens": "x"}}]}]',
        json.dumps([recorded(prices={**PRICES, "input_price": "dear"})]).encode(),
    ],
)
def test_a_file_of_another_shape_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    (tmp_path / "usages.json").write_bytes(data)
    for path in (tmp_path / "usages.json", tmp_path / "absent.json"):
        assert metering.main([str(path), "--json"]) != 0
        assert "metering: " in (said := capsys.readouterr().err) and "cannot be read" in said


def test_a_mark_of_the_byte_order_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "usages.json").write_bytes(BOM_UTF8 + json.dumps([recorded()]).encode())
    assert metering.main([str(tmp_path / "usages.json")]) == 0
