"""The search process: loads the embedding model, follows PostgreSQL, and serves local search until it is stopped.

It announces itself as `search` and, for deployments with the url `local:embeddings`, as `embeddings`, once the model
has embedded a text. It only composes; `knowledge` decides what is found, and by whom.
"""

from __future__ import annotations

import argparse
import gc
import secrets
import select
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from psycopg import Connection
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.core import logs
from groundplan.core.database import database_url
from groundplan.core.endpoints import announce_retrying, listen_locally, withdraw
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.last_known_address import TimeLimitedConnection
from groundplan.core.settings import Settings, load_settings
from groundplan.gateway import memory
from groundplan.knowledge.embedding.batching import LazyEmbedder, RunOnceAfter
from groundplan.knowledge.embedding.deployed import DeployedEmbedder
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder, precision_of
from groundplan.knowledge.embedding.wire import EARLY
from groundplan.knowledge.retrieval import rerank
from groundplan.knowledge.retrieval.editions import Editions
from groundplan.knowledge.retrieval.endpoint import Application, KnowledgeService, application
from groundplan.knowledge.retrieval.projection_file import ProjectionFile
from groundplan.knowledge.retrieval.replication import Follower
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.self_check import Examiner
from groundplan.knowledge.service_client import EMBEDDINGS, SEARCH
from groundplan.runtime.models import MINILM, ensure

_STATEMENT_TIMEOUT_MS = 3000
KEPT_SECONDS = 60
"""How long an idle connection is kept: longer than a worker keeps it (`http1_pool.IDLE_SECONDS`), or a request might be
sent over one that is being closed."""
ASKED_OFTEN = 100
"""Requests after which the service prepares the model for speed, which costs as much as hundreds of requests."""
_EMBEDDING_SECONDS = 5.0
"""Timeout for the embedding of a question by a deployment; after it, the search uses words only."""


def compose(home: Home, settings: Settings, token: str) -> tuple[Application, ConnectionPool[Any], Follower]:
    """The application with its pool and follower; the caller closes the pool and stops the follower.

    Raises `Unavailable` where the model or the address of the database is missing.
    """
    # numpy's threads spin while they wait for each other, which takes seven times as long on a busy machine
    threadpool_limits(limits=1, user_api="blas")
    model = ensure(settings.models, MINILM.name)
    encoder = load_encoder(model, precision_of(settings.embedding_precision))
    questions = load_question_encoder(model, encoder, prepared=False)
    for each in (encoder, questions):
        each.embed(["ready"])
    often = RunOnceAfter(ASKED_OFTEN, partial(_prepare_for_load, questions))
    saved = ProjectionFile(home.search)
    index = Editions(saved.load())
    pool: ConnectionPool[Any] = ConnectionPool(
        lambda: database_url(home, settings, "search"),
        connection_class=_Asked,
        kwargs={"autocommit": True},
        min_size=1,
        max_size=4,
        configure=configure,
        check=_check,
        # after this time a failed connection is tried again at the next request, instead of ever more rarely
        reconnect_timeout=1.0,
        name="search",
        open=False,
    )
    pool.open(wait=False)
    follower = Follower(lambda: database_url(home, settings, "control"), index, saved.save_if_due)
    follower.start()
    search = Search(
        pool,
        often.count_texts(questions),
        index,
        deployed=lambda embedding: DeployedEmbedder(home, embedding, _EMBEDDING_SECONDS),
        reranker=lambda rule: rerank.DeployedReranker(home, rule),
    )
    examiner = Examiner(search.queries, lambda: database_url(home, settings, "control"))
    early = often.count_texts(LazyEmbedder(lambda: load_question_encoder(model, encoder, EARLY)))
    return application(KnowledgeService(search, encoder, follower, examiner, early), token), pool, follower


class _Asked(TimeLimitedConnection):
    """Times out one second after PostgreSQL itself would have ended the statement."""

    max_statement_seconds = _STATEMENT_TIMEOUT_MS / 1000 + 1.0


def _check(connection: Connection[Any]) -> None:
    """Raises `OperationalError` where the server has closed the connection. That makes the socket readable; if it is
    not, no query is needed."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        ConnectionPool.check_connection(connection)


def configure(connection: Any) -> None:
    connection.execute(f"SET statement_timeout = {_STATEMENT_TIMEOUT_MS}")
    connection.execute("SET default_transaction_read_only = on")
    # each request has other ids, for which PostgreSQL would plan anew, and planning takes longer than executing
    connection.execute("SET plan_cache_mode = force_generic_plan")
    # rows are read by indexes, never by scanning a table, however small: hidden rows would take measurable time
    connection.execute("SET enable_seqscan = off")
    connection.execute("SET random_page_cost = 1")


def _prepare_for_load(questions: Encoder) -> None:
    """Prepare the model and the memory for many requests. Takes a second, and longer for an index of a gigabyte, while
    requests are answered."""
    questions.prepare()
    memory.move_to_large_pages()


async def serve(home: Home, settings: Settings) -> None:
    """Serve on a free port of 127.0.0.1 until SIGTERM or SIGINT, announced while it does."""
    token = secrets.token_urlsafe(32)
    app, pool, follower = compose(home, settings, token)
    with listen_locally() as listener:
        config = uvicorn.Config(
            app,
            log_level="warning",
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=KEPT_SECONDS,
        )
        server = uvicorn.Server(config)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # before the service is announced and may be stopped; uvicorn raises the signal once more when it has finished
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        gc.collect()
        gc.freeze()
        stopped = threading.Event()
        for name, address in ((SEARCH, url), (EMBEDDINGS, f"{url}/v1")):
            announce_retrying(home, name, address, token, stopped)
        try:
            await server.serve(sockets=[listener])
        finally:
            stopped.set()
            for name in (SEARCH, EMBEDDINGS):
                withdraw(home, name)
            follower.stop()
            pool.close(timeout=1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m groundplan.gateway.search_app --home HOME`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="groundplan.gateway.search_app", description=__doc__)
    parser.add_argument("--home", type=Path, help="folder of this installation (default: GROUNDPLAN_HOME)")
    given = parser.parse_args(arguments)
    logs.configure("search")
    settings = load_settings()
    settings = replace(settings, home=(given.home or settings.home).absolute())
    try:
        uvloop.run(serve(Home(settings.home), settings))
    except GroundplanError as error:
        sys.stderr.write(f"search: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
