"""Tokens of people and documents by place: `0185_tokens_by_place.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
