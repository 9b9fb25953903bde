"""The calls of a person are found without a look at everybody's: `0321_calls_of_a_person.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
