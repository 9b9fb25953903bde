"""The search service is told what documents are: `0305_documents_described.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
