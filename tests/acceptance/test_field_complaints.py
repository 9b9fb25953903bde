"""What users of gateways complain about, each as a test on real processes: budgets that leak or block falsely, wrong
costs, streams that break, memory that grows, databases that deadlock, caches that leak, usage that is lost, agents that
call in a loop.

All tests share one installation; the last one restarts it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from groundplan.gateway.call import pipeline
from tests.acceptance.field_world import (
    INPUT,
    NORMAL,
    OUTPUT,
    SHAPES,
    SHIPPER,
    WORKER,
    Client,
    FieldInstallation,
    openai_usage,
    price,
    run_field_installation,
)
from tests.acceptance.stack import Answer, request, wait_until
from tests.integration.nursery import run_command

MESSAGES = [{"role": "user", "content": "hello"}]


def form_of(file: bytes, name: str, **fields: str) -> bytes:
    """A form (`FORM`) with these fields and one file."""
    parts = [f'--b\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
    head = f'--b\r\ncontent-disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
    return "".join((*parts, head)).encode() + file + b"\r\n--b--\r\n"


AUDIO = form_of(bytes(32_000), "file", model="scripted-ear")
PICTURE = form_of(b"\x89PNG\r\n\x1a\n" + bytes(64), "image", model="auto", prompt="a house", size="1024x1024")
FORM = {"content_type": "multipart/form-data; boundary=b"}
ENDPOINTS: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", {"model": "auto", "messages": MESSAGES, "max_tokens": 20}),
    "chat_stream": ("/v1/chat/completions", {"model": "auto", "messages": MESSAGES, "max_tokens": 20, "stream": True}),
    "messages": ("/v1/messages", {"model": "auto", "messages": MESSAGES, "max_tokens": 20}),
    "messages_stream": ("/v1/messages", {"model": "auto", "messages": MESSAGES, "max_tokens": 20, "stream": True}),
    "responses": ("/v1/responses", {"model": "auto", "input": "hello", "max_output_tokens": 20}),
    "responses_stream": ("/v1/responses", {"model": "auto", "input": "hello", "max_output_tokens": 20, "stream": True}),
    "completions": ("/v1/completions", {"model": "auto", "prompt": "hello", "max_tokens": 20}),
    "embeddings": ("/v1/embeddings", {"model": "auto", "input": "a b c d e f g h i j k l m n o p q r s t u v w x y z"}),
    "moderations": ("/v1/moderations", {"model": "auto", "input": "hello"}),
    "rerank": ("/v1/rerank", {"model": "auto", "query": "q", "documents": ["d"]}),
    "images": ("/v1/images/generations", {"model": "auto", "prompt": "a house", "size": "1024x1024"}),
    "speech": ("/v1/audio/speech", {"model": "auto", "input": "hello", "voice": "alloy"}),
    "transcriptions": ("/v1/audio/transcriptions", AUDIO),
    "transcriptions_stream": ("/v1/audio/transcriptions", form_of(bytes(32_000), "file", model="auto", stream="true")),
    "translations": ("/v1/audio/translations", AUDIO),
    "images_edits": ("/v1/images/edits", PICTURE),
    "images_variations": ("/v1/images/variations", form_of(b"\x89PNG\r\n\x1a\n", "image", size="1024x1024")),
    "images_stream": ("/v1/images/generations", {"model": "auto", "prompt": "a house", "stream": True}),
    "speech_events": (
        "/v1/audio/speech",
        {"model": "auto", "input": "hello", "voice": "alloy", "stream_format": "sse"},
    ),
}


@pytest.fixture(scope="module")
def running_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FieldInstallation]:
    with run_field_installation(tmp_path_factory.mktemp("field")) as installation:
        yield installation


@pytest.fixture
def installation(running_installation: FieldInstallation) -> FieldInstallation:
    running_installation.one.control(**NORMAL)
    running_installation.two.control(**NORMAL)
    return running_installation


def run_simultaneously(count: int, call: Callable[[int], Any]) -> list[Any]:
    """The results of `count` calls that start at the same moment."""
    gate = threading.Barrier(count)

    def run(number: int) -> Any:
        gate.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def post(installation: FieldInstallation, key: str, endpoint: str, **headers: str) -> Answer:
    path, body = ENDPOINTS[endpoint]
    if isinstance(body, bytes):
        headers |= FORM
    return installation.post(key, path, body, **headers)


def chat(installation: FieldInstallation, key: str, text: str = "hello", **more: Any) -> Answer:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **more}
    return installation.post(key, "/v1/chat/completions", body)


def max_cost(installation: FieldInstallation, key: str, endpoint: str) -> Decimal:
    """The upper bound of the cost of one such call, as an estimate says."""
    answer = post(installation, key, endpoint, groundplan_estimate="1")
    assert answer.status == 200, answer.body
    return Decimal(answer.body["most_usd"])


# Agents that call in a loop


ANOMALY_SECONDS = 150.0
"""Time until an anomaly is reported, including the interval of the check and a busy machine: minutes, not days."""


@dataclass(frozen=True)
class Agent:
    """A client that made every answer part of its next question until its budget was exhausted."""

    key: str
    budget: Decimal
    answered_calls: int
    refusal: Answer


@pytest.fixture(scope="module")
def agent(running_installation: FieldInstallation) -> Agent:
    running_installation.one.control(**NORMAL)
    budget = Decimal("0.02")
    key = running_installation.key(budget=budget)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Reconcile the ledger. " + "step " * 40}]
    for answered_calls in range(500):
        body = {"model": "auto", "messages": messages, "max_tokens": 20}
        reply = running_installation.post(key, "/v1/chat/completions", body, groundplan_feature="reconciler")
        if reply.status != 200:
            return Agent(key, budget, answered_calls, reply)
        messages.append(reply.body["choices"][0]["message"])
        messages.append({"role": "user", "content": "That did not work, try again. " + "detail " * 30})
    pytest.fail("nothing stopped the agent")


def test_an_agent_in_a_loop_is_stopped_by_its_budget(installation: FieldInstallation, agent: Agent) -> None:
    error = agent.refusal.body["error"]
    assert agent.answered_calls >= 10 and agent.refusal.status == 429
    assert set(error) >= {"message", "type", "param", "code", "hint"}
    assert error["code"] == "budget_exhausted"
    assert Decimal(error["remaining_usd"]) < Decimal(error["needed_usd"].removeprefix("$"))
    assert chat(installation, agent.key, "again " * 1500).status == 429
    assert chat(installation, installation.key()).status == 200, "the budget of one key stops no other key"
    assert installation.spent(agent.key, agent.answered_calls) <= agent.budget


# Budgets that leak, and budgets that block falsely


def test_every_billed_endpoint_is_tested() -> None:
    """Conversations are tried in `tests/integration/test_realtime.py`."""
    billed = {path.decode() for path, interface in pipeline._INTERFACES.items() if interface.is_billed}
    assert {path for path, _ in ENDPOINTS.values()} | {"/v2/rerank"} == billed


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_budget_is_enforced_on_every_endpoint(installation: FieldInstallation, endpoint: str) -> None:
    budget = max_cost(installation, installation.key(), endpoint) * 3
    key, before = installation.key(budget=budget), len(installation.one.counted())
    answers = run_simultaneously(12, lambda _: post(installation, key, endpoint))
    while len(answers) < 200:  # one at a time: refused only if the budget is exhausted
        answers.append(post(installation, key, endpoint))
        if answers[-1].status != 200:
            break
    served = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in refused} == {429}, [answer.body for answer in refused]
    assert len(served) >= 3
    assert len(installation.one.counted()) - before == len(served), "refused calls were never sent"
    spent = installation.spent(key, len(served))
    assert budget / 2 <= spent <= budget, "each call was charged"


def test_a_batch_is_reserved_in_full_before_it_runs(installation: FieldInstallation) -> None:
    path, body = ENDPOINTS["chat"]
    cost = max_cost(installation, installation.key(), "chat")
    key, before = installation.key(budget=cost * 4), len(installation.one.counted())
    assert run_batch(installation, key, path, body, 9)["status"] == "failed"
    assert len(installation.one.counted()) == before, "no part of a batch that does not fit was sent"
    assert run_batch(installation, key, path, body, 4)["status"] == "completed"
    assert len(installation.one.counted()) - before == 4
    assert 0 < installation.spent(key, 4) <= cost * 4


def run_batch(installation: FieldInstallation, key: str, path: str, body: Any, count: int) -> Any:
    """Run a batch of `count` calls; returns the batch once it has ended."""
    lines = [json.dumps({"custom_id": f"c{n}", "method": "POST", "url": path, "body": body}) for n in range(count)]
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + "\n".join(lines).encode()
        + b"\r\n--b--\r\n"
    )
    file = installation.post(key, "/v1/files", form, **FORM)
    assert file.status == 200, file.body
    order = {"input_file_id": file.body["id"], "endpoint": path, "completion_window": "24h"}
    created = installation.post(key, "/v1/batches", order)
    assert created.status == 200, created.body
    headers = {"authorization": f"Bearer {key}"}

    def finished_batch() -> Any:
        batch = request(installation.stack.port, "GET", f"/v1/batches/{created.body['id']}", None, headers).body
        return batch if batch["status"] in ("failed", "completed", "expired", "cancelled") else None

    return wait_until(finished_batch, 60, "the batch ended")


def test_simultaneous_first_requests_do_not_exceed_a_budget(installation: FieldInstallation) -> None:
    installation.one.control(**NORMAL, latency_ms=50)
    for kind in ("chat", "chat_stream", "messages", "responses"):
        key, before = installation.key(budget=OUTPUT * 20 * 3 + INPUT * 1000), len(installation.one.counted())
        answers = run_simultaneously(40, partial(_post_numbered, installation, key, kind))
        served = sum(answer.status == 200 for answer in answers)
        assert 0 < served == len(installation.one.counted()) - before
        assert installation.spent(key, served) <= OUTPUT * 20 * 3 + INPUT * 1000


def _post_numbered(installation: FieldInstallation, key: str, endpoint: str, _: int) -> Answer:
    return post(installation, key, endpoint)


def test_recent_spend_is_not_counted_again_on_top_of_reservations(installation: FieldInstallation) -> None:
    """Answers are much shorter than what is reserved: a budget admits calls as long as the bound of one more fits."""
    installation.one.control(mode="ok", tokens=2)
    bound = max_cost(installation, installation.key(), "chat")
    key = installation.key(budget=bound * 2)
    answers = [chat(installation, key)]
    cost = Decimal(answers[0].headers["groundplan-cost-usd"])
    fitting = int(bound / cost) + 1
    answers += [chat(installation, key) for _ in range(fitting + 1)]
    statuses = [answer.status for answer in answers]
    assert statuses[:fitting] == [200] * fitting, f"refused after {statuses.index(429)} of {fitting}"
    assert installation.spent(key, statuses.count(200)) == cost * statuses.count(200)


PATHS = (
    "/v1/chat/completions/", "//v1/chat/completions", "/V1/chat/completions", "/v1/../v1/chat/completions",
    "/v1%2Fchat%2Fcompletions", "/chat/completions", "/openai/v1/chat/completions", "/passthrough/v1/chat/completions",
    "/openai/deployments/one/chat/completions", "/v1/fine_tuning/jobs", "/v1/assistants", "/v1/threads/runs",
    "/v1/vector_stores", "/v1/realtime", "/v1beta/models/one:generateContent", "/v1/one/chat/completions",
    "/v1/chat/completions;x=1", "/v1/chat/completions%00",
)  # fmt: skip


def test_no_other_url_path_bypasses_a_budget(installation: FieldInstallation) -> None:
    key, before = installation.key(budget=INPUT), len(installation.one.counted())
    for path in PATHS:
        for method in ("POST", "GET", "PUT"):
            headers = {"authorization": f"Bearer {key}"}
            answer = request(installation.stack.port, method, path, ENDPOINTS["chat"][1], headers)
            reached_budget = answer.status == 429 and answer.code == "budget_exhausted"
            listed_stored_objects = method == "GET" and answer.status == 200  # the caller's stored objects
            assert answer.status in (400, 404, 405) or reached_budget or listed_stored_objects, (
                method,
                path,
                answer.status,
            )
    queried = installation.post(key, "/v1/chat/completions?api-version=1", ENDPOINTS["chat"][1])
    assert (queried.status, queried.code) == (429, "budget_exhausted")
    assert len(installation.one.counted()) == before


def test_reservations_never_exceed_a_token_limit(installation: FieldInstallation) -> None:
    """A limit of 1,000 tokens: the reservations of simultaneous calls never add up to more."""
    used = {"prompt_tokens": 80, "completion_tokens": 20, "total_tokens": 100}
    installation.one.control(**NORMAL, latency_ms=30, usage=used)
    key = installation.key("limited")
    answers = run_simultaneously(40, lambda _: chat(installation, key))
    assert {answer.status for answer in answers} == {200, 429}
    assert {answer.code for answer in answers if answer.status == 429} == {"rate_limit_exceeded"}
    quiet = time.monotonic() + 2
    while time.monotonic() < quiet:
        answers.append(chat(installation, key))
        if answers[-1].status == 200:
            quiet = time.monotonic() + 2
        else:
            time.sleep(0.1)
    served = [answer for answer in answers if answer.status == 200]
    assert 7 <= len(served) <= 10, "a hundred tokens each"


# Costs that are wrong


@pytest.mark.parametrize("name", SHAPES)
def test_tokens_of_each_class_cost_exactly_their_price(installation: FieldInstallation, name: str) -> None:
    shape, key = SHAPES[name], installation.key("exact")
    installation.one.control(mode="ok", usage=openai_usage(shape))
    send = partial(chat, installation, key, "x" * 12_000, model="scripted-dear", max_tokens=600)
    for answer in (send(), send(stream=True)):
        assert answer.status == 200, answer.body
        (attempt,) = installation.attempts(answer.headers["groundplan-call-id"])
        assert attempt["cost_usd"] == price(shape)
        assert attempt["cost_usd"] <= attempt["reserved_usd"] and not attempt["estimated"]
        assert displayed_costs(installation, answer) == [price(shape)] * 2, "the answer and the receipt agree"


def displayed_costs(installation: FieldInstallation, answer: Answer) -> list[Decimal]:
    """The cost of a call according to its answer, and according to its receipt."""
    body = answer.body
    if isinstance(body, bytes):
        data = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")][-1]
    else:
        data = body
    receipt = installation.control_api("GET", f"/api/calls/{answer.headers['groundplan-call-id']}")
    return [Decimal(data["groundplan"]["cost_usd"]), Decimal(receipt["cost_usd"])]


def test_usage_reported_as_by_the_messages_api_costs_the_same(installation: FieldInstallation) -> None:
    """In that API, tokens read from and written to the cache are not part of the input tokens."""
    key = installation.key("exact")
    usage = {
        "input_tokens": 34,
        "output_tokens": 77,
        "cache_read_input_tokens": 701,
        "cache_creation_input_tokens": 333,
    }
    installation.one.control(mode="ok", tokens=77, usage=usage)
    expected = price({"input": 34, "output": 77, "cache_read": 701, "cache_write": 333})
    body = {"model": "scripted-claude", "max_tokens": 600, "messages": [{"role": "user", "content": "x" * 2000}]}
    answers = [installation.post(key, "/v1/messages", {**body, "stream": stream}) for stream in (False, True)]
    for answer in answers:
        assert answer.status == 200, answer.body
        (attempt,) = installation.attempts(answer.headers["groundplan-call-id"])
        assert attempt["cost_usd"] == expected and displayed_costs(installation, answer) == [expected] * 2


# Streams


BREAKS = ("cut", "stall_late", "malformed", "no_finish", "error_event", "comments", "empty", "wrong_type", "stall")


@pytest.mark.parametrize("way", BREAKS)
def test_a_fallback_continues_a_stream_that_broke_in_any_way(installation: FieldInstallation, way: str) -> None:
    words = " ".join(f"w{n}" for n in range(12))
    installation.one.control(mode=way, chunk_ms=2)
    installation.two.control(mode="ok")
    before = len(installation.two.counted())
    answer = chat(installation, installation.key("safe"), words, stream=True, max_tokens=60)
    assert answer.status == 200
    assert stream_text(answer.body) == f"You asked: {words}", "every word, once"
    assert len(installation.two.counted()) == before + 1, "the fallback was asked"
    installation.one.control(**NORMAL)
    wait_until_first_deployment_is_used_again(installation)


def stream_text(body: bytes) -> str:
    """The text of a complete stream without errors."""
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]", body
    chunks = [json.loads(event) for event in events[:-1]]
    assert not any("error" in chunk for chunk in chunks), body
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def wait_until_first_deployment_is_used_again(installation: FieldInstallation) -> None:
    """Wait until every worker sends calls to the first deployment again, so that the next break happens there, too."""
    key = installation.key("safe")

    def first() -> bool:
        before = len(installation.one.counted())
        run_simultaneously(6, lambda _: chat(installation, key))
        return len(installation.one.counted()) == before + 6

    wait_until(first, 60, "every worker sends calls to the first deployment")


@pytest.mark.parametrize("rule", ["generated", "full", "drain"])
def test_a_client_that_disconnects_is_charged_for_what_was_used(installation: FieldInstallation, rule: str) -> None:
    installation.one.control(mode="ok", tokens=30, chunk_ms=40 if rule == "drain" else 200)
    call, words = disconnect(installation, installation.key(rule))
    (attempt,) = installation.attempts(call)
    assert attempt["outcome"] == "cancelled"
    used = attempt["usage"]
    if rule == "drain":
        assert attempt["cost_usd"] == 5 * INPUT + 30 * OUTPUT and not attempt["estimated"]
    elif rule == "full":
        assert attempt["cost_usd"] == attempt["reserved_usd"]
    else:
        assert words <= used["output"] and words * OUTPUT <= attempt["cost_usd"] < attempt["reserved_usd"]


def test_a_reported_usage_of_zero_is_charged_as_zero(installation: FieldInstallation) -> None:
    """Also if the client disconnected: no estimate is charged in place of a reported usage of zero."""
    installation.one.control(mode="ok", tokens=10, chunk_ms=20, usage=openai_usage({}))
    key = installation.key("drain")
    answer = chat(installation, key)
    assert (answer.status, float(answer.headers["groundplan-cost-usd"])) == (200, 0)
    streamed = chat(installation, key, stream=True).headers["groundplan-call-id"]
    disconnected, _ = disconnect(installation, key)
    for call in (answer.headers["groundplan-call-id"], streamed, disconnected):
        (attempt,) = installation.attempts(call)
        assert attempt["cost_usd"] == 0 and not attempt["estimated"]
        assert "under_count" in attempt["flags"], "the attempt is flagged, since more was used"


def disconnect(installation: FieldInstallation, key: str) -> tuple[str, int]:
    """Disconnect in the middle of a stream; returns the id of the call and how many words had arrived."""
    connection = http.client.HTTPConnection("127.0.0.1", installation.stack.port, timeout=30)
    body = {"model": "auto", "messages": MESSAGES, "max_tokens": 60, "stream": True}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    data = b""
    while data.count(b'"content":"') < 5:
        data += answer.read1(4096)
    connection.close()
    answer.close()
    return answer.headers["groundplan-call-id"], data.count(b'"content":"') - 1


# Memory, database, cache


def test_memory_is_flat_over_many_calls(installation: FieldInstallation) -> None:
    installation.one.control(mode="ok")
    key, text = installation.key(), "x" * 20_000

    def run_calls(count: int) -> None:
        def run_client(number: int) -> None:
            with Client(installation.stack.port, key) as caller:
                for n in range(count // 8):
                    assert caller.chat(f"{text} {number} {n}", stream=n % 2 == 0) == 200

        run_simultaneously(8, run_client)

    run_calls(400)
    before = resident_bytes(installation)
    run_calls(1600)
    after = resident_bytes(installation)
    grown = [later - earlier for earlier, later in zip(before, after, strict=True)]
    assert max(grown) < 8 << 20, "memory grew by a part of the size of 1,600 calls of 20 kB"


def resident_bytes(installation: FieldInstallation) -> list[int]:
    """Resident memory of each worker, in bytes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in sorted(installation.stack.pids(WORKER))]
    return [count * os.sysconf("SC_PAGE_SIZE") for count in pages]


def test_counters_of_many_keys_never_deadlock_in_the_database(installation: FieldInstallation) -> None:
    """Workers lease, return and ship many budgets at the same time, in any order."""
    installation.one.control(mode="ok")
    keys = [installation.key(budget=INPUT * 3000) for _ in range(8)]

    def run_client(number: int) -> None:
        with ExitStack() as opened:
            callers = [opened.enter_context(Client(installation.stack.port, key)) for key in keys]
            for n in range(40):
                assert callers[(n * (number + 1)) % len(keys)].chat("hello", stream=n % 3 == 0) in (200, 429)

    run_simultaneously(12, run_client)
    wait_until(installation.all_attempts_settled, 60, "all is in the ledger")
    ((row),) = installation.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert row["deadlocks"] == 0
    logs = "".join(path.read_text(errors="replace") for path in (installation.stack.home / "logs").glob("*"))
    assert "deadlock detected" not in logs and "database system is ready" in logs
    for key in keys:
        assert installation.spent(key, 1) <= INPUT * 3000


def test_a_cached_answer_never_reaches_another_user(installation: FieldInstallation) -> None:
    for name in ("ana", "ben"):
        installation.control_api("POST", "/api/people", {"email": f"{name}@company.example", "name": name})
    ana, ben = (installation.key("cached", user=f"{name}@company.example") for name in ("ana", "ben"))
    nobody = installation.key("cached")

    def cached(key: str, text: str, **more: Any) -> str:
        return str(chat(installation, key, text, temperature=0, **more).body["groundplan"]["cache"])

    for month in ("May", "June", "July"):
        text = f"What is my salary in {month}?"
        answers = [cached(ana, text) for _ in range(10)]
        assert answers[0] == "none" and "exact" in answers, "the same person with the same question gets it again"
        assert [cached(ben, text), cached(nobody, text)] == ["none", "none"], "nobody else gets it"
        for near in (text.lower(), text[:-1], text + " ", text.replace("my", "his")):
            assert cached(ana, near) == "none", "nor does a question that is only similar"


# Usage that is lost


def test_no_usage_is_lost_when_a_worker_is_killed_in_mid_traffic(installation: FieldInstallation) -> None:
    installation.one.control(**NORMAL, latency_ms=20, chunk_ms=2)
    key, stop = installation.key(), threading.Event()

    def send() -> None:
        while not stop.is_set():
            with suppress(OSError, http.client.HTTPException), Client(installation.stack.port, key) as caller:
                for n in range(20):
                    caller.chat("hello", stream=n % 2 == 0)
            time.sleep(0.02)

    senders = [threading.Thread(target=send) for _ in range(6)]
    for sender in senders:
        sender.start()
    for _ in range(3):
        time.sleep(0.7)
        workers = wait_until(lambda: installation.stack.pids(WORKER), 30, "a worker runs")
        os.kill(workers[0], signal.SIGKILL)
    time.sleep(0.7)
    stop.set()
    for sender in senders:
        sender.join()
    wait_until(installation.all_attempts_settled, 90, "every attempt that the upstream counted is in the ledger")
    ((row),) = installation.sql(
        "SELECT count(*) FILTER (WHERE state = 'crashed') crashed, count(DISTINCT (call_id, number)) alone, count(*) n"
        " FROM attempt"
    )
    assert row["alone"] == row["n"] and row["crashed"] <= 3 * 6, (
        "no row twice; attempts that were open are marked as crashed"
    )


def test_no_usage_is_dropped_while_the_shipper_is_stopped(installation: FieldInstallation) -> None:
    """The shippers are stopped: calls go on, and all usage reaches the ledger later."""
    installation.one.control(mode="ok")
    wait_until(installation.all_attempts_settled, 60, "all earlier usage is in the ledger")
    key, shippers, before = (
        installation.key(),
        installation.stack.pids(SHIPPER),
        workload_cost(installation, "assistant"),
    )
    assert shippers
    for pid in shippers:
        os.kill(pid, signal.SIGSTOP)
    try:

        def run_client(_: int) -> list[int]:
            with Client(installation.stack.port, key) as caller:
                return [caller.chat("hello") for _ in range(150)]

        statuses = [status for of_client in run_simultaneously(8, run_client) for status in of_client]
    finally:
        for pid in shippers:
            os.kill(pid, signal.SIGCONT)
    assert statuses == [200] * 1200
    each = Decimal(chat(installation, key).headers["groundplan-cost-usd"])
    assert each > 0 and installation.spent(key, 1201) == 1201 * each, (
        "nothing is dropped, neither after 100 calls nor after 1,000"
    )
    wait_until(
        lambda: workload_cost(installation, "assistant") == before + 1201 * each, 30, "the cost page shows it, too"
    )
    assert installation.all_attempts_settled()


def workload_cost(installation: FieldInstallation, workload: str) -> Decimal:
    """The cost of a workload according to the cost page."""
    costs = {
        each["workload"]: each["total_usd"] for each in installation.control_api("GET", "/api/cost")["by_workload"]
    }
    return Decimal(costs.get(workload, 0))


def test_an_agent_in_a_loop_is_reported_as_an_anomaly(installation: FieldInstallation, agent: Agent) -> None:
    """The anomaly says who, for what, and what was done. Among the last tests: anomalies are searched each minute."""
    keys = installation.control_api("GET", "/api/keys")["keys"]
    prefix = next(each["prefix"] for each in keys if agent.key.startswith(each["prefix"]))

    def runaway_anomaly() -> Any:
        rows = installation.control_api("GET", "/api/cost/anomalies")["anomalies"]
        return next((row for row in rows if row["detail"]["kind"] == "runaway" and prefix in row["message"]), None)

    anomaly = wait_until(runaway_anomaly, ANOMALY_SECONDS, "the loop is reported")
    loop = anomaly["detail"]["loop"]
    assert (anomaly["subject"], anomaly["severity"]) == ("workload/assistant", "high")
    assert (loop["team"], loop["feature"], loop["calls"]) == ("field", "reconciler", agent.answered_calls)
    assert loop["growing"] and loop["last_tokens"] > 2 * loop["first_tokens"] > 0
    assert loop["budget"].startswith("key/") and Decimal(loop["limit_usd"]) == agent.budget
    assert Decimal(loop["cost_usd"]) <= agent.budget
    assert f"(key {prefix}) of team field, feature reconciler, made" in anomaly["message"]
    assert f"its own budget of ${agent.budget}" in anomaly["message"] and "calls a minute" in anomaly["message"]
    assert anomaly["id"] in {each["id"] for each in installation.stack.cli("cost", "anomalies")["anomalies"]}
    printed = run_command(("cost", "anomalies", "--home", str(installation.stack.home)), os.environ, 60)
    assert f"(key {prefix})" in printed.stdout and "stopped it at" in printed.stdout, printed.stderr
    assert "groundplan keys revoke" in printed.stdout


def listed_budgets(installation: FieldInstallation) -> list[tuple[str, Decimal, str]]:
    """(key id, limit, period) of every key that has a budget, according to the list of keys."""
    keys = installation.control_api("GET", "/api/keys")["keys"]
    budgets = [(key["id"], key["budget_usd"], key["budget_period"]) for key in keys]
    return sorted((name, Decimal(limit), period) for name, limit, period in budgets if limit is not None)


def test_an_exhausted_budget_stays_exhausted_after_a_restart(installation: FieldInstallation) -> None:
    """Every budget is still there, too. The last test, since it restarts the installation."""
    cost = max_cost(installation, installation.key(), "chat")
    key = installation.key(budget=cost * 2)
    while (answer := chat(installation, key)).status == 200:
        pass
    assert answer.code == "budget_exhausted"
    calls = installation.sql("SELECT count(*) n FROM call WHERE status = 'ok'")[0]["n"]
    budgets_before = listed_budgets(installation)
    assert (cost * 2, "total") in [(limit, period) for _, limit, period in budgets_before]
    installation.stack.stop()
    installation.stack.start()
    assert listed_budgets(installation) == budgets_before
    refused = chat(installation, key)
    assert (refused.status, refused.code) == (429, "budget_exhausted")
    assert installation.sql("SELECT count(*) n FROM call WHERE status = 'ok'")[0]["n"] >= calls
    assert chat(installation, installation.key(budget=cost * 2)).status == 200, "other keys are still served"
