"""A legal hold on what is kept of a person: `0083_person_hold.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
