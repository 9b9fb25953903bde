"""Editions of the search index beside each other: `0082_index_editions.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
