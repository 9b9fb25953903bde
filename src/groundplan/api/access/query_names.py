"""What is asked by the query of a request: names that its route does not know are refused, for without what a mistyped
one was to pick out the answer would be everything. Values are looked at by the route itself.
"""

from __future__ import annotations

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from groundplan.core.errors import Invalid


def refuse_unknown(request: Request) -> None:
    """Raises `Invalid` (`query_unknown`) for a name that a route which is asked by GET, and knows any, does not know.
    Where nothing can be picked out nothing is mistaken: a name there is passed over."""
    route = request.scope.get("route")
    if request.method != "GET" or not request.query_params or not isinstance(route, APIRoute):
        return
    known = _known(route)
    unknown = sorted(set(request.query_params) - set(known))
    if known and unknown:
        raise Invalid(
            f"{route.path_format} is not asked by {', '.join(name[:40] for name in unknown[:5])}",
            code="query_unknown",
            hint=f"It is asked by {', '.join(known)}.",
        )


def _known(route: APIRoute) -> tuple[str, ...]:
    """In alphabetical order."""
    others = (params.Path, params.Header, params.Cookie)
    flat = get_flat_params(route.dependant)
    return tuple(sorted({each.alias for each in flat if not isinstance(each.field_info, others)}))
