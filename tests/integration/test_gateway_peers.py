"""The gateway's benchmark: all of it where other gateways are named, with limits like everything else, and a verdict on
each goal. A peer that takes its time is waited for, one that is not there is told so."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gateway_bed import HERE, Installation, LoadFailed, build_blueprint, free_port, measure_load, wait_http
from benchmarks.gateway_peers import Peer, measure_least, measure_peer
from benchmarks.gateway_steps import STEPS, step_blueprint
from benchmarks.gateway_suite import ABSENT, TARGETS, absent_peers, parse_arguments, verdict

UPSTREAM = f"{sys.executable} {HERE / 'gateway_upstream.py'} --port"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with ExitStack() as stack:
        installed = Installation(stack, tmp_path)
        stack.callback(installed.listening.close)
        installed.spawn("upstream", *UPSTREAM.split(), str(installed.upstream_port))
        yield installed


def test_a_peer_that_is_not_there_at_once_is_waited_for(installation: Installation) -> None:
    late = f"sleep 1; exec {UPSTREAM} {{port}} --forward {{upstream}}"
    found = measure_peer(installation, Peer("late", late), 0.5)
    assert isinstance(found, dict), found
    assert found["ok"] > 0 and found["errors"] == 0


def test_a_peer_that_chooses_its_port_says_so(installation: Installation) -> None:
    found = measure_peer(installation, Peer("own", f"echo port={installation.upstream_port}; exec sleep 60"), 0.5)
    assert isinstance(found, dict), found
    assert found["ok"] > 0


def test_a_peer_that_cannot_start_is_told_absent(installation: Installation) -> None:
    began = time.monotonic()
    found = measure_peer(installation, Peer("gone", "echo no such library; exit 3"), 0.5)
    assert found == "absent or failed (exit 3): no such library"
    assert time.monotonic() - began < 30


def test_the_least_gateway_answers_calls_and_streams(installation: Installation) -> None:
    found = measure_least(installation, 0.5)
    assert {"least_c32", "least_open_300", "least_stream_c16", "least_stream_open_50"} == found.keys()
    assert all(run["ok"] > 0 and run["errors"] == 0 for run in found.values()), found


def test_a_run_without_an_answer_is_no_figure(installation: Installation) -> None:
    port = free_port()
    installation.spawn(
        "files", sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", cwd=installation.folder
    )
    wait_http(port, "/", 20)
    with pytest.raises(LoadFailed, match=r"none of [1-9]\d* requests was answered: .*501"):
        measure_load(port, {}, "--conc", "1", "--secs", "1", "--most", "1")


def test_whoever_names_a_peer_gets_everything() -> None:
    for words in (["--peer", "LiteLLM=litellm {port}", "--json"], ["--all"]):
        arguments = parse_arguments(words)
        assert (arguments.all, arguments.cache, arguments.long) == (True, True, 1_000_000)
    short = parse_arguments(["--json", "--long", "9"])
    assert (short.all, short.cache, short.long) == (False, False, 9) and not parse_arguments([]).long
    assert absent_peers(["LiteLLM", "own"]) == dict.fromkeys(("portkey", "mlflow", "tensorzero"), ABSENT)


def test_each_goal_has_its_verdict_and_a_peer_its_own_however_its_name_is_written() -> None:
    numbers = ("worker_cpu_ms", "asgi_cpu_ms", "least_cpu_ms", "p50_ms", "p99_ms", "first_p50_ms")
    run: Any = dict.fromkeys(numbers, 0.05) | {"rps": 8000.0, "disturbed": False}
    slow, streams = ("open_300_20ms", "open_300_20ms_random"), ("stream_open_50", "stream_open_50_random")
    open_runs = ("open_300", *slow, *streams)
    runs = ("closed_c32", "closed_c128", "two_workers_c128", "cached_c32", "stream_c16", "prompts_200kb", "asgi_c32")
    figures: Any = dict.fromkeys((*runs, "least_c32", *open_runs, *(f"{each}_direct" for each in open_runs)), run)
    figures |= {"steps": dict.fromkeys(STEPS, run), "neighbours": {"lost": 1}, "open_streams": {"during_mib": 90.0}}
    figures["one_worker_c128"] = [run, run | {"worker_cpu_ms": 0.03}]
    memory = {"idle_mib": 50.0, "long_third_mib": 50.0, "long_mib": 59.0}
    peers = {"LiteLLM": {"rps": 100.0, "rps_c128": 200.0}, "mlflow": "absent or failed (exit 3)"}
    found = verdict(figures | memory | {"start_s": 1.0, "peers": peers})
    assert found.keys() == {*TARGETS, "disturbed", "times LiteLLM c32", "times LiteLLM c128"}
    missed = {name for name, each in found.items() if name != "disturbed" and not each["met"]}
    assert missed == {"lost_beside_neighbours", "long_growth_mib", "two_workers_ratio", "times LiteLLM c128"}
    assert found["times LiteLLM c128"]["target"] == 70.0
    assert found["two_workers_ratio"]["reached"] == 1.25


def test_what_is_measured_has_limits_and_the_steps_tell_what_they_take() -> None:
    assert {limit.type for limit in build_blueprint(1).limits} == {"requests", "tokens", "concurrent"}
    assert [step for step in STEPS[1:] if step_blueprint(step, 1, 2).limits] == list(STEPS[STEPS.index("limits") :])
