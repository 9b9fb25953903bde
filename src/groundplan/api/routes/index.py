"""Editions of the search index: what there is, how they compare, switching, going back, taking away."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from psycopg import Connection

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import Services, ServicesDep
from groundplan.api.knowledge.editions import IndexContext
from groundplan.api.knowledge.quotes import DATA_DUTIES
from groundplan.api.served_blueprint import current_blueprint
from groundplan.core.errors import Invalid
from groundplan.knowledge.index import compare, index_store, switch, upkeep
from groundplan.knowledge.index.model import Edition, IndexSettings, describe, serving_edition

router = protected_router("knowledge")


@router.get("/knowledge/index")
def editions(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Every edition of the search index with its state, settings and comparison, and what is declared."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        found = index_store.editions(conn)
        sizes = index_store.edition_sizes(conn)
        wanted = IndexContext(services, conn, blueprint).declared_settings()
    return {
        "editions": [{**_edition_json(one), **sizes.get(one.id, {"documents": 0, "passages": 0, "without_vector": 0})}
                     for one in reversed(found)],
        "declared": {**_settings(wanted.settings), "switch": "by-hand" if wanted.by_hand else "automatic"},
        "serves_declared": serving_edition(found).settings == wanted.settings,
    }  # fmt: skip


@router.post("/knowledge/index/build")
def build(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Begin an edition as declared, now; it is built beside the one that serves. It is begun by itself as well."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        bench = _index_context(services, conn)
        step = upkeep.next_step(index_store.editions(conn), bench.declared_settings())
        if step is None or step.what not in ("create", "drop"):
            return {"edition": None if step is None else step.edition, "begun": False}
        if step.what == "drop":
            switch.drop_edition(
                conn, step.edition, bench.change_author(str(caller.actor)), "something else is declared now"
            )
        return {
            "edition": upkeep.begin_edition(
                conn, bench.declared_settings().settings, bench.change_author(str(caller.actor))
            ),
            "begun": True,
        }


@router.post("/knowledge/index/{edition}/compare")
def comparison(edition: int, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Compare an edition that is ready with the one that serves: counts, missing documents, recall, quality."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        bench = _index_context(services, conn)
        found = index_store.read_edition(conn, edition)
        if found is None or found.state not in ("ready", "switching"):
            raise Invalid(
                f"edition {edition} is {found.state if found else 'not there'}", code="index_state",
                hint="An edition is compared when it is ready: `groundplan knowledge index list`.",
            )  # fmt: skip
        tools = bench.tools()
        return {
            "edition": edition,
            **compare.compare_edition(conn, found, tools.examine, tools.judge, services.clock.now()),
        }


@router.post("/knowledge/index/{edition}/switch")
def switching(edition: int, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Let an edition serve as soon as every search service holds it; the one before is kept."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        who = _index_context(services, conn).change_author(str(caller.actor))
        switch.request_switch(conn, edition, who)
        return _state(conn, edition, done=switch.finish_switch(conn, edition, who))


@router.post("/knowledge/index/rollback")
def rollback(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Go back to the edition that served before. The one that is left is not switched to by itself again."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        who = _index_context(services, conn).change_author(str(caller.actor))
        before = switch.previous_edition(conn)
        switch.request_switch(conn, before.id, who, declined=True)
        return _state(conn, before.id, done=switch.finish_switch(conn, before.id, who))


@router.post("/knowledge/index/{edition}/drop")
def dropping(edition: int, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Take away an edition that does not serve, before its time."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        switch.drop_edition(conn, edition, _index_context(services, conn).change_author(str(caller.actor)), "by hand")
    return {"edition": edition, "state": "dropped"}


def _state(conn: Connection[Any], edition: int, *, done: bool) -> dict[str, Any]:
    waiting = sum(edition not in held for held in index_store.connected_followers(conn))
    return {"edition": edition, "state": "serving" if done else "switching", "services_reading": waiting}


def _edition_json(one: Edition) -> dict[str, Any]:
    return {**asdict(one), "settings": _settings(one.settings)}


def _settings(settings: IndexSettings) -> dict[str, Any]:
    model, chunking = describe(settings)
    return {"model": model, "chunking": chunking, "dimension": settings.dimension}


def _index_context(services: Services, conn: Connection[Any]) -> IndexContext:
    with conn.transaction():
        return IndexContext(services, conn, current_blueprint(conn))
