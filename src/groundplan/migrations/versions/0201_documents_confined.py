"""Whether the kernel confined the parser of a document: `0201_documents_confined.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
