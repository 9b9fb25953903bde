"""Routers of everything below /api: each route requires authorization, and is built once.

FastAPI builds the routes of a router anew wherever it is included, which takes half a second at startup for hundreds of
them, and each request would search one router after the other. So a router has its prefix and dependencies from the
beginning, and the application takes its routes as they are. Authorization itself is in `authorization`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from groundplan.api.access.authorization import PREFIX, authorize_request
from groundplan.api.http.lazy_routes import lazy_router


def protected_router(tag: str, *, prefix: str = "", **more: Any) -> APIRouter:
    """A router below /api and `prefix` whose routes require authorization; `more` are further arguments of FastAPI."""
    return lazy_router(prefix=f"{PREFIX}{prefix}", tags=[tag], dependencies=[Depends(authorize_request)], **more)


def protected_routes(routers: Iterable[APIRouter]) -> list[BaseRoute]:
    """All routes of the routers. Raises `RuntimeError` if one would be served without authorization."""
    routes = [route for router in routers for route in router.routes]
    for route in routes:
        if not _is_protected(route):
            raise RuntimeError(
                f"{getattr(route, 'path', route)} asks for no authorization: make its router by `protected_router`"
            )
    return routes


def _is_protected(route: BaseRoute) -> bool:
    if not isinstance(route, APIRoute) or not route.path.startswith(f"{PREFIX}/"):
        return False
    return any(dependency.dependency is authorize_request for dependency in route.dependencies)
