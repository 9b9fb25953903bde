"""Facts that come when their day is archived leave in a further part: `0311_late_facts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
