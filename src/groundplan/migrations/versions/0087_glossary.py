"""The glossary for search: `0087_glossary.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
