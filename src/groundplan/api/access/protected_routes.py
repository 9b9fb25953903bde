"""Routers of everything below /api: each route asks for authorization first, and is made once, as it is served.

FastAPI makes the routes of a router anew wherever it is included, which for hundreds of them is half a second of every
start, and each request looks for its route in one router after the other. So a router says from the beginning where its
routes are and what they ask first, and they are taken as they are. What they ask is `authorization`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from groundplan.api.access.authorization import PREFIX, authorized
from groundplan.api.http.lazy_routes import lazy_router


def below_api(tag: str, *, prefix: str = "", **more: Any) -> APIRouter:
    """A router of routes below /api and `prefix`; `more` is FastAPI's."""
    return lazy_router(prefix=f"{PREFIX}{prefix}", tags=[tag], dependencies=[Depends(authorized)], **more)


def routes_of(routers: Iterable[APIRouter]) -> list[BaseRoute]:
    """Their routes. Raises `RuntimeError` where one would be served without asking for authorization."""
    found = [route for router in routers for route in router.routes]
    for route in found:
        if not _is_protected(route):
            raise RuntimeError(
                f"{getattr(route, 'path', route)} asks for no authorization: make its router by `below_api`"
            )
    return found


def _is_protected(route: BaseRoute) -> bool:
    if not isinstance(route, APIRoute) or not route.path.startswith(f"{PREFIX}/"):
        return False
    return any(each.dependency is authorized for each in route.dependencies)
