"""Routes that are built in full on first use: until then only their path and methods are known.

Inspecting endpoint functions and building validators takes a fifth of the startup time for hundreds of routes, of which
a control process serves a few dozen. So each route is completed on its first request, or when another attribute of it
is read, as the OpenAPI description does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import compile_path, get_name

_BUILD_LOCK = threading.RLock()


class LazyRoute(APIRoute):
    """FastAPI's route, built on first use. Errors in the endpoint function are raised then."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        self._given = given
        self.path, self.endpoint = path, endpoint
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.name = given.get("name") or get_name(endpoint)
        self.methods = {method.upper() for method in given.get("methods") or ("GET",)}
        self.dependencies = list(given.get("dependencies") or ())
        self.include_in_schema = given.get("include_in_schema", True)

    def __getattr__(self, name: str) -> Any:
        """Called for attributes that are not there yet: builds the route."""
        with _BUILD_LOCK:
            given = self.__dict__.pop("_given", None)
            if given is not None:
                try:
                    super().__init__(self.path, self.endpoint, **given)
                except BaseException:
                    self._given = given
                    raise
        return self.__getattribute__(name)


def lazy_router(**terms: Any) -> APIRouter:
    """A router of lazy routes; `terms` are arguments of FastAPI."""
    return APIRouter(route_class=LazyRoute, **terms)
