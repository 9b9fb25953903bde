"""Grants on sources: `0041_source_grants.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
