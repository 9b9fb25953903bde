"""The search process as others use it: announced, keyed, OpenAI's embeddings, refusing when PostgreSQL is away."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import openai
import psycopg
import pytest
from benchmarks import routing_call
from tests import small_pages
from tests.integration.nursery import Worker, fork_program
from tests.unit.test_gateway_memory import kernel_can
from tests.unit.test_routing_model import make_matrix

from groundplan.blueprint.model import Source
from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import child_environment, load_settings
from groundplan.economics.routing.learn.fit import train
from groundplan.gateway.routing import question_embedding
from groundplan.gateway.search_app import ASKED_OFTEN
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder
from groundplan.knowledge.embedding.wire import EARLY, WORD_BYTES, EmbedAnswer, embed_answer, embed_request
from groundplan.knowledge.retrieval.wire import SearchAnswer, SearchRequest
from groundplan.knowledge.service import IngestContext, ingest_sources
from groundplan.knowledge.service_client import SEARCH, RemoteEmbedder, post_json, wait_for_service
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Cluster, Database

SOURCE = Source(name="handbook", path="docs", sensitivity="internal", owner="dana@acme.example", readers=["everyone"])
_END_ALL = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
"""Each is gone when this returns."""


def post(endpoint: Endpoint, path: str, body: object) -> bytes:
    return post_json(endpoint, path, msgspec.json.encode(body))


def search(home: Home, request: SearchRequest) -> SearchAnswer:
    return msgspec.json.decode(
        post(wait_for_service(home, SEARCH, patience=0.0), "/search", request), type=SearchAnswer
    )


def lag(home: Home) -> int:
    endpoint = lookup(home, "search")
    assert endpoint is not None
    return int(msgspec.json.decode(post(endpoint, "/lag", {}))["documents"])


def _wait(home: Home, name: str, process: Worker) -> Endpoint:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = lookup(home, name)
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{name} did not come up: {process.poll()}")


@pytest.fixture(scope="module")
def database(postgres_cluster: Cluster) -> Iterator[Database]:
    with postgres_cluster.database() as fresh:
        yield fresh


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("search") / "home")
    made.create()
    return made


@contextmanager
def serving(database: Database, home: Home) -> Iterator[Worker]:
    """The search process of a home."""
    ensure(load_settings().models, MINILM.name)
    process = fork_program(
        "groundplan.gateway.search_app",
        ["--home", str(home.root)],
        2,
        {**child_environment({"GROUNDPLAN_DATABASE_URL": database.dsn}), small_pages.ALLOWED: "yes"},
    )
    try:
        _wait(home, "embeddings", process)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def service(database: Database, home: Home) -> Iterator[Worker]:
    with serving(database, home) as process:
        yield process


def test_loaded_data_moves_to_large_pages_after_many_searches(home: Home, service: Worker) -> None:
    def heap() -> tuple[int, int]:
        """kB that are there, and those of them in large pages."""
        every = Path(f"/proc/{service.pid}/smaps").read_text()
        own = every.split("[heap]")[1]
        there, large = (int(re.findall(rf"(?m)^{name}: +(\d+) kB$", own)[0]) for name in ("Rss", "AnonHugePages"))
        return there, large

    def ask(number: int) -> None:
        texts = [f"question {each}" for each in range(number)]
        post(_wait(home, "search", service), "/embed", {"texts": texts, "questions": True})

    ask(ASKED_OFTEN - 1)
    there, large = heap()
    assert large * 2 < there, f"{large} of {there} kB before"
    ask(1)
    with small_pages.allowed():
        can, deadline = kernel_can(), time.monotonic() + 30
    while heap()[1] * 2 < heap()[0] and can and time.monotonic() < deadline:
        time.sleep(0.05)
    there, large = heap()
    assert (large * 2 >= there) == can, f"{large} of {there} kB"


def test_texts_are_embedded_for_any_local_process(home: Home, service: Worker) -> None:
    texts = ["a dog runs", "", "the last words of a long text count: " + "on and on " * 400 + "salary bands"]
    vectors = RemoteEmbedder(home).embed(texts)
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    shorter = RemoteEmbedder(home).embed([texts[2].removesuffix("salary bands")])[0]
    assert not np.allclose(vectors[2], shorter, atol=1e-3)
    assert RemoteEmbedder(home).embed([]).shape == (0, 384)
    with pytest.raises(Invalid) as caught:
        post(_wait(home, "search", service), "/embed", {"texts": []})
    assert caught.value.code == "embeddings_request"
    with pytest.raises(Unavailable):
        RemoteEmbedder(Home(home.root / "nowhere"), patience=0.0).embed(["a"])


def test_the_benchmark_of_routing_measures_decisions_whose_question_is_embedded_here(
    home: Home, service: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wait(home, "search", service)
    matrix = make_matrix(40)
    vectors = np.random.default_rng(1).standard_normal((40, 384)).astype(np.float32)
    router = replace(train(matrix, vectors, ()), points={"0.99": (0.0, 0.0)})
    prompts = [sample.prompt for sample in matrix.samples]
    told = routing_call.measure_calls(home, service.pid, router, prompts)
    asks = len(prompts) - routing_call.WARM_UP_QUESTIONS
    assert told["decision_by_gateway_asked"] == asks > 2 * told["decision_by_gateway_late"]
    assert 0 < told["decision_by_gateway_cpu_ms_p50"] <= told["decision_by_gateway_cpu_ms_p95"]
    assert (
        0 < told["decision_by_gateway_ms_p50"] <= told["decision_by_gateway_ms_p95"] < 1000 * question_embedding.SECONDS
    )
    monkeypatch.setattr(question_embedding, "SECONDS", 0.01)
    os.kill(service.pid, signal.SIGSTOP)
    try:
        told = routing_call.measure_calls(home, service.pid, router, prompts)
    finally:
        os.kill(service.pid, signal.SIGCONT)
    assert told == {"decision_by_gateway_asked": asks, "decision_by_gateway_late": asks}


def test_questions_have_equal_embeddings_and_are_not_counted(home: Home, service: Worker) -> None:
    texts = ["How long is paid leave?", "a dog runs"]
    endpoint = _wait(home, "search", service)
    plain, asked = (
        msgspec.json.decode(post(endpoint, "/embed", {"texts": texts, **more}), type=EmbedAnswer)
        for more in ({}, {"questions": True})
    )
    assert plain.tokens > 0 == asked.tokens
    for one, other in zip(plain.vectors, asked.vectors, strict=True):
        assert np.frombuffer(one, "<f4") @ np.frombuffer(other, "<f4") > 0.998


def test_questions_for_a_router_are_embedded_by_the_first_layers(home: Home, service: Worker) -> None:
    texts = ["How long is paid leave?"]
    endpoint, folder = _wait(home, "search", service), ensure(load_settings().models, MINILM.name)
    whole, early = (
        np.frombuffer(embed_answer(post(endpoint, "/embed", msgspec.json.decode(asked)), 1).vectors[0], "<f4")
        for asked in (embed_request(texts, questions=True), embed_request(texts, questions=True, layers=EARLY))
    )
    wanted = load_question_encoder(folder, load_encoder(folder, threads=1), EARLY).embed(texts)[0]
    assert early @ wanted > 0.998 and abs(early @ whole) < 0.9


def test_word_embeddings_are_returned_beside_the_text(home: Home, service: Worker) -> None:
    endpoint = _wait(home, "search", service)
    texts, places = ["How long is paid leave?", "a dog runs"], [[(9, 11), (12, 16)], []]
    told = post(endpoint, "/embed", {"texts": texts, "places": places})
    answer = embed_answer(told, 2, places)
    assert [len(words) for words in answer.words] == [2 * WORD_BYTES, 0] and answer.tokens > 0
    again = RemoteEmbedder(home).embed(texts)
    assert np.allclose([np.frombuffer(vector, "<f4") for vector in answer.vectors], again, atol=1e-5)
    for wrong in (places[:1], [[[0, 1]] * 4097, []]):
        with pytest.raises(Invalid) as caught:
            post(endpoint, "/embed", {"texts": texts, "places": wrong})
        assert caught.value.code == "embeddings_request" and caught.value.hint
    with pytest.raises(msgspec.DecodeError):
        embed_answer(told, 2, [[(9, 11)], []])


def test_embeddings_use_openais_api(home: Home, service: Worker) -> None:
    endpoint = _wait(home, "embeddings", service)
    with openai.OpenAI(base_url=endpoint.url, api_key=endpoint.token, max_retries=0) as client:
        given = client.embeddings.create(model="all-minilm-l6-v2", input=["a dog runs", "a cat sleeps"])
        plain = client.embeddings.create(model="any", input="a dog runs", encoding_format="float")
        assert [one.index for one in given.data] == [0, 1]
        assert np.allclose(given.data[0].embedding, plain.data[0].embedding, atol=1e-6)
        assert plain.usage.prompt_tokens == plain.usage.total_tokens == 3
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="any", input="x", dimensions=12)
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="any", input=[])
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="any", input=[[1, 2]])
    with openai.OpenAI(base_url=endpoint.url, api_key="other", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.embeddings.create(model="any", input="x")


def test_bad_requests_have_distinct_errors(home: Home, service: Worker) -> None:
    endpoint = _wait(home, "search", service)
    for path, body, code in (
        ("/search", {"workload": "w"}, "request_body"),
        ("/search", {"workload": "w", "person": None, "query": "x", "sources": [], "extra": 1}, "request_body"),
        ("/nowhere", {}, "route_not_found"),
        ("/search", {"query": "x" * (5 << 20)}, "too_large"),
    ):
        with pytest.raises(Invalid) as caught:
            post(endpoint, path, body)
        assert caught.value.code == code
        assert caught.value.hint


def test_without_postgresql_search_refuses_and_comes_back(database: Database, home: Home, service: Worker) -> None:
    person = new_id()
    request = SearchRequest(workload="w", person=str(person), query="leave", sources=["handbook"])
    assert search(home, request).passages == []
    with psycopg.connect(database.superuser.replace(f"/{database.name}?", "/postgres?"), autocommit=True) as admin:
        # ended connections stand for a restarted server: the next question opens new ones
        admin.execute(_END_ALL, (database.name,))
        assert search(home, request).passages == []
        # nobody may connect any more: cut off
        admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
        admin.execute(_END_ALL, (database.name,))
        with pytest.raises(Unavailable) as caught:
            search(home, request)
        assert caught.value.code == "search_cut_off"
        time.sleep(3)
        admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert search(home, request).passages == []
            return
        except Unavailable:
            time.sleep(0.2)
    raise AssertionError("search did not come back")


def test_documents_are_ingested_and_found_through_the_service(
    database: Database, home: Home, tmp_path: Path, service: Worker
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "leave.md").write_text("# Leave\n\nEmployees have 28 days of paid leave a year.\n")
    ingest_sources(
        database.urls["control"], [SOURCE], RemoteEmbedder(home), IngestContext(tmp_path, date(2026, 11, 25))
    )
    person = new_id()
    with psycopg.connect(database.urls["control"], autocommit=True) as conn:
        conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'ben@acme.example', 'Ben')", (person,))
    request = SearchRequest(workload="w", person=str(person), query="How long is paid leave?", sources=["handbook"])
    found = search(home, request)
    assert [(one.path, one.start_line, one.end_line) for one in found.passages] == [("leave.md", 1, 3)]
    deadline = time.monotonic() + 30
    while lag(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lag(home) == 0


def test_the_service_stops_cleanly_and_withdraws_its_announcement(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with serving(database, home) as process:
        assert lookup(home, "search") is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert lookup(home, "search") is None
    with pytest.raises(Unavailable):
        search(home, SearchRequest(workload="w", person=None, query="x", sources=[]))
