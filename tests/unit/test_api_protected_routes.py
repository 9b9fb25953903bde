"""The door of the API: no route is served below /api that does not ask first who comes."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute

from groundplan.api.access.authorization import authorize_request
from groundplan.api.access.protected_routes import protected_router, protected_routes
from groundplan.api.routes import API_ROUTERS


def answer() -> str:
    return "nobody was asked"


def test_every_route_says_where_it_is_and_asks_before_anything_else() -> None:
    routes = protected_routes(API_ROUTERS)
    assert len(routes) > 200
    for route in routes:
        assert isinstance(route, APIRoute) and route.path.startswith("/api/")
        assert route.dependant.dependencies[0].call is authorize_request


@pytest.mark.parametrize(
    "router",
    [
        APIRouter(tags=["cost"]),
        APIRouter(prefix="/api", tags=["cost"]),
        APIRouter(prefix="/cost", dependencies=[Depends(authorize_request)]),
        APIRouter(prefix="/apis", dependencies=[Depends(authorize_request)]),
    ],
)
def test_a_route_beside_the_door_is_not_served(router: APIRouter) -> None:
    router.add_api_route("/open", answer)
    with pytest.raises(RuntimeError, match=r"/open asks for no authorization"):
        protected_routes([protected_router("cost"), router])


def test_a_router_of_another_kind_of_route_is_not_served_either() -> None:
    router = protected_router("cost")
    router.add_route("/plain", lambda _: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(RuntimeError, match="/plain asks for no authorization"):
        protected_routes([router])
