"""Times of documents whose source tells none: `0200_documents_dated.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
