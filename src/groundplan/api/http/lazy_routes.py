"""Routes that are built in full when they are first asked: until then only their path and methods are known.

To read from a function what it asks, and to make from that what checks a request, is a fifth of the computing of a
start for hundreds of routes, of which a control process is asked a few dozen. So each is made whole when it is first
asked, or when somebody looks at what else it has, as the description of the API does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import compile_path, get_name

_MAKING = threading.RLock()


class LazyRoute(APIRoute):
    """As FastAPI's own. What is wrong with a function that cannot be asked is raised when it is first asked."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        self._given = given
        self.path, self.endpoint = path, endpoint
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.name = given.get("name") or get_name(endpoint)
        self.methods = {method.upper() for method in given.get("methods") or ("GET",)}
        self.dependencies = list(given.get("dependencies") or ())
        self.include_in_schema = given.get("include_in_schema", True)

    def __getattr__(self, name: str) -> Any:
        """Python asks for what is not there yet."""
        with _MAKING:
            given = self.__dict__.pop("_given", None)
            if given is not None:
                try:
                    super().__init__(self.path, self.endpoint, **given)
                except BaseException:
                    self._given = given
                    raise
        return self.__getattribute__(name)


def lazy_router(**terms: Any) -> APIRouter:
    """A router of such routes; `terms` are FastAPI's."""
    return APIRouter(route_class=LazyRoute, **terms)
