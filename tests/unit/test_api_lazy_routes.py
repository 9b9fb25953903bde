"""Routes that are made whole when they are first asked: found, answered and described as by FastAPI's own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import FastAPIError
from fastapi.testclient import TestClient
from pydantic import BaseModel

from groundplan.api.http.lazy_routes import LazyRoute, lazy_router
from groundplan.console.app import ROUTERS


class Wanted(BaseModel):
    number: int


class Odd:
    """Nothing that a request could hold."""


def who() -> str:
    return "somebody"


def told(name: str, wanted: Wanted, by: str = Depends(who)) -> dict[str, str]:
    """What is told."""
    return {"name": name, "number": str(wanted.number), "by": by}


def looked_at(name: str) -> dict[str, str]:
    return {"name": name}


def app_of(make: Callable[..., APIRouter]) -> FastAPI:
    router = make(prefix="/api", tags=["things"], dependencies=[Depends(who)])
    router.add_api_route("/things/{name}", told, methods=["post"], status_code=201, summary="Tell")
    router.get("/things/{name}")(looked_at)
    router.get("/hidden/{name}", include_in_schema=False, name="secret")(looked_at)
    app = FastAPI()
    app.router.routes += router.routes
    return app


ASKED: list[tuple[str, str, Any]] = [
    ("POST", "/api/things/a", {"number": 3}),
    ("POST", "/api/things/a", {"number": "many"}),
    ("POST", "/api/things/a", None),
    ("GET", "/api/things/a", None),
    ("HEAD", "/api/things/a", None),
    ("DELETE", "/api/things/a", None),
    ("GET", "/api/hidden/a", None),
    ("GET", "/api/things/a/b", None),
    ("GET", "/api/things/", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ASKED)
def test_each_request_is_answered_as_by_the_frameworks_own(method: str, path: str, body: Any) -> None:
    answers = []
    for make in (lazy_router, APIRouter):
        with TestClient(app_of(make)) as client:
            found = client.request(method, path, json=body)
            answers.append((found.status_code, found.content, found.headers.get("allow")))
    assert answers[0] == answers[1]


def test_the_description_is_the_same_and_so_are_addresses() -> None:
    late, own = app_of(lazy_router), app_of(APIRouter)
    assert late.url_path_for("secret", name="a") == own.url_path_for("secret", name="a") == "/api/hidden/a"
    assert late.openapi() == own.openapi()


def test_nothing_of_it_is_made_until_it_is_asked_and_then_once_however_many_ask() -> None:
    app = app_of(lazy_router)
    routes = [route for route in app.router.routes if isinstance(route, LazyRoute)]
    assert len(routes) == 3
    assert not any("dependant" in vars(route) for route in routes)
    with TestClient(app) as client:
        assert client.get("/api/things/a").json() == {"name": "a"}
    assert ["dependant" in vars(route) for route in routes] == [False, True, False]
    with ThreadPoolExecutor(8) as threads:
        assert len(set(map(id, threads.map(lambda _: routes[0].dependant, range(32))))) == 1


def test_what_is_wrong_with_a_function_is_told_each_time_it_is_asked() -> None:
    def wrong(what: Odd) -> None:
        del what

    router = lazy_router()
    router.add_api_route("/wrong", wrong)
    for _ in range(2):
        with pytest.raises(FastAPIError, match="Invalid args for response field"):
            router.routes[0].app  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="colour"):
        app_of(lazy_router).router.routes[-1].colour  # type: ignore[attr-defined]  # noqa: B018


def test_all_pages_can_be_made() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    assert len(routes) > 80
    for route in routes:
        assert isinstance(route, LazyRoute)
        assert callable(route.app)
