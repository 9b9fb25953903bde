"""What a dead worker held of calls at the same time goes back once: `0366_places_given_back_once.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
