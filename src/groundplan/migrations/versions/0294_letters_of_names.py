"""A name is found however it was typed: `0294_letters_of_names.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
