"""Rejects unknown query parameters: a mistyped filter would otherwise return everything. Values are validated by the
routes.
"""

from __future__ import annotations

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from groundplan.core.errors import Invalid


def reject_unknown_names(request: Request) -> None:
    """Raise `Invalid` (`query_unknown`) for query parameters that a GET route does not know. Routes without any query
    parameter ignore them."""
    route = request.scope.get("route")
    if request.method != "GET" or not request.query_params or not isinstance(route, APIRoute):
        return
    known = _known_names(route)
    unknown = sorted(set(request.query_params) - set(known))
    if known and unknown:
        raise Invalid(
            f"{route.path_format} has no parameter {', '.join(name[:40] for name in unknown[:5])}",
            code="query_unknown",
            hint=f"It has: {', '.join(known)}.",
        )


def _known_names(route: APIRoute) -> tuple[str, ...]:
    """The query parameters of a route in alphabetical order."""
    other_kinds = (params.Path, params.Header, params.Cookie)
    flat = get_flat_params(route.dependant)
    return tuple(sorted({field.alias for field in flat if not isinstance(field.field_info, other_kinds)}))
