"""Deleted places stay empty without their names: `0293_names_of_places.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
