"""Links and forms of the console lead to what is served, and each address is served once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from starlette.routing import Match, Route

from groundplan.api.access.protected_routes import protected_routes
from groundplan.api.routes import API_ROUTERS, PAGE_ROUTERS
from groundplan.console.app import ROUTERS, STATIC

TEMPLATES = Path(STATIC).parent / "templates"
LINK = re.compile(r"(?:href|action)=\"(/(?:[^\"{?#]|{{[^}\"]*}})*)([^\"]?)")
ROUTES = [
    route
    for route in (
        *(each for router in (*ROUTERS, *PAGE_ROUTERS) for each in router.routes),
        *protected_routes(API_ROUTERS),
    )
    if isinstance(route, Route)
]


def served(path: str, method: str) -> bool:
    scope = {"type": "http", "path": path, "method": method, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in ROUTES)


def test_each_link_and_form_leads_somewhere() -> None:
    links = set()
    for page in TEMPLATES.glob("*.html"):
        for path, rest in LINK.findall(page.read_text()):
            if rest != "{" or not path.endswith("/"):  # its end is one of several words
                links.add(re.sub(r"{{.*?}}", "x", path))
    assert len(links) > 100
    for link in sorted(links):
        if link.startswith("/static/"):
            assert (STATIC / link.removeprefix("/static/")).is_file(), link
        else:
            assert served(link, "POST" if link.startswith("/do/") else "GET"), link


def test_each_address_is_served_once() -> None:
    addresses = Counter((method, route.path) for route in ROUTES for method in route.methods or ())
    assert [address for address, times in addresses.items() if times > 1] == []
