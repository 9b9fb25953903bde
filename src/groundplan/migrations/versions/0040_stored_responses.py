"""Stored responses: `0040_stored_responses.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
