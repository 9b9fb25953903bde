"""Documents that applications push to a source of type `push`, or withdraw. The next scan of the source parses them."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import psycopg
from fastapi import Request
from pydantic import Field, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.knowledge.quotes import DATA_DUTIES
from groundplan.api.routes.documents import Name, Path, Strict
from groundplan.api.served_blueprint import current_blueprint
from groundplan.core.errors import Invalid
from groundplan.knowledge.deletion import deletion_store
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES
from groundplan.knowledge.sources import push_store

router = protected_router("knowledge")


class PushedDocument(Strict):
    """A document as `text`, or as `data` (base64) of the type `media` (`pdf`, `docx`); `gone` withdraws the
    document."""

    path: Path
    text: str | None = None
    data: str | None = None
    media: Annotated[str, StringConstraints(max_length=10, pattern=r"^[a-z0-9]*$")] = ""
    readers: list[str] | None = None
    told: dict[str, Any] = Field(default_factory=dict)
    """Governed properties, as in a document's front matter."""
    gone: bool = False


class Pushed(Strict):
    """Documents for a source of type `push`."""

    source: Name
    documents: Annotated[list[PushedDocument], Field(min_length=1, max_length=500)]


@router.post("/knowledge/push")
def push(body: Pushed, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Store pushed documents; a scan of the source, after which they are searchable, starts at once. Documents whose
    paths were deleted by a decision are not stored but listed in `refused`, until their paths are readmitted."""
    require_duty(caller, DATA_DUTIES, f"source/{body.source}")
    with services.transaction() as conn:
        declared = {source.name: source for source in current_blueprint(conn).sources}
        source = declared.get(body.source)
        if source is None or source.connector is None or source.connector.type != "push":
            raise Invalid(
                f"{body.source} is not a source of type push", code="push_source",
                hint="Declare it with `connector: {type: push}`, and let a workload use it.",
            )  # fmt: skip
        for item in body.documents:
            if item.gone:
                push_store.withdraw_document(conn, body.source, item.path)
            else:
                row = push_store.Pushed(
                    _document_bytes(item), item.media or "md", item.readers, item.told, services.clock.now()
                )
                try:
                    push_store.put_document(conn, body.source, item.path, row)
                except (psycopg.DataError, UnicodeEncodeError) as error:
                    raise Invalid(
                        f"{item.path}: its readers or values cannot be stored", code="push_document",
                        hint="Leave out NUL characters, lone surrogates and numbers such as NaN.",
                    ) from error  # fmt: skip
        # read after the writes, which wait for concurrent deletions of the same documents
        closed_places = deletion_store.closed_places(conn, body.source, [item.path for item in body.documents])
        refused = sorted({item.path for item in body.documents if not item.gone and item.path in closed_places})
        push_store.drop_documents(conn, body.source, refused)
    request.app.state.indexer.request_source(body.source)
    hint = "It was deleted here: readmit it with `groundplan knowledge readmit`, or stop pushing it."
    return {
        "source": body.source,
        "documents": sum(item.path not in refused for item in body.documents),
        "refused": [{"path": path, "code": "document_deleted", "hint": hint} for path in refused],
    }


def _document_bytes(item: PushedDocument) -> bytes:
    """The bytes of the document. Raises `Invalid` (`push_document`) if not exactly one of `text` and `data` is given,
    `data` is not base64, or the document is too large."""
    if (item.text is None) == (item.data is None):
        raise Invalid(f"{item.path} needs text or data", code="push_document", hint="Send one of the two.")
    try:
        data = item.text.encode() if item.text is not None else base64.b64decode(item.data or "", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Invalid(f"{item.path}: data is not base64", code="push_document", hint="Encode its bytes.") from error
    if len(data) > MAX_TEXT_BYTES:
        raise Invalid(
            f"{item.path} is larger than {MAX_TEXT_BYTES >> 20} MiB", code="push_document", hint="Split it into parts."
        )
    return data
