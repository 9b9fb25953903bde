"""Editions of the search index: list, build, compare, switch, roll back and drop them."""

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
    """List the editions of the search index with state, settings, sizes and comparison, and the declared settings."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        listed = index_store.editions(conn)
        sizes, no_size = index_store.edition_sizes(conn), {"documents": 0, "passages": 0, "without_vector": 0}
        declared = IndexContext(services, conn, blueprint).declared_settings()
    return {
        "editions": [{**_edition_json(edition), **sizes.get(edition.id, no_size)} for edition in reversed(listed)],
        "declared": {**_settings(declared.settings), "switch": "by-hand" if declared.by_hand else "automatic"},
        "serves_declared": serving_edition(listed).settings == declared.settings,
    }  # fmt: skip


@router.post("/knowledge/index/build")
def build(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Start building the declared edition now, beside the one that serves; without this request it starts by itself.
    `begun` is false if there is nothing to build."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        context = _index_context(services, conn)
        step = upkeep.next_step(index_store.editions(conn), context.declared_settings())
        if step is None or step.what not in ("create", "drop"):
            return {"edition": None if step is None else step.edition, "begun": False}
        if step.what == "drop":
            switch.drop_edition(
                conn, step.edition, context.change_author(str(caller.actor)), "something else is declared now"
            )
        return {
            "edition": upkeep.begin_edition(
                conn, context.declared_settings().settings, context.change_author(str(caller.actor))
            ),
            "begun": True,
        }


@router.post("/knowledge/index/{edition}/compare")
def comparison(edition: int, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Compare an edition that is ready with the one that serves: counts, missing documents, recall, quality. Raises
    `Invalid` (`index_state`) for an edition that is not ready."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        context = _index_context(services, conn)
        target = index_store.read_edition(conn, edition)
        if target is None or target.state not in ("ready", "switching"):
            raise Invalid(
                f"edition {edition} is {target.state if target else 'not there'}", code="index_state",
                hint="An edition is compared when it is ready: `groundplan knowledge index list`.",
            )  # fmt: skip
        tools = context.tools()
        return {
            "edition": edition,
            **compare.compare_edition(conn, target, tools.examine, tools.judge, services.clock.now()),
        }


@router.post("/knowledge/index/{edition}/switch")
def switching(edition: int, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Serve an edition as soon as every search service has loaded it; the previous one is kept. `services_reading`
    counts the services that have not loaded it yet."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        author = _index_context(services, conn).change_author(str(caller.actor))
        switch.request_switch(conn, edition, author)
        return _state(conn, edition, done=switch.finish_switch(conn, edition, author))


@router.post("/knowledge/index/rollback")
def rollback(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Go back to the edition that served before. The one that is left is not switched to automatically again."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        author = _index_context(services, conn).change_author(str(caller.actor))
        before = switch.previous_edition(conn)
        switch.request_switch(conn, before.id, author, declined=True)
        return _state(conn, before.id, done=switch.finish_switch(conn, before.id, author))


@router.post("/knowledge/index/{edition}/drop")
def dropping(edition: int, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Remove an edition that does not serve, before its retention ends."""
    require_duty(caller, DATA_DUTIES, "company")
    with services.own_connection() as conn:
        switch.drop_edition(conn, edition, _index_context(services, conn).change_author(str(caller.actor)), "by hand")
    return {"edition": edition, "state": "dropped"}


def _state(conn: Connection[Any], edition: int, *, done: bool) -> dict[str, Any]:
    services_reading = sum(edition not in loaded_editions for loaded_editions in index_store.connected_followers(conn))
    return {"edition": edition, "state": "serving" if done else "switching", "services_reading": services_reading}


def _edition_json(edition: Edition) -> dict[str, Any]:
    return {**asdict(edition), "settings": _settings(edition.settings)}


def _settings(settings: IndexSettings) -> dict[str, Any]:
    model, chunking = describe(settings)
    return {"model": model, "chunking": chunking, "dimension": settings.dimension}


def _index_context(services: Services, conn: Connection[Any]) -> IndexContext:
    with conn.transaction():
        return IndexContext(services, conn, current_blueprint(conn))
