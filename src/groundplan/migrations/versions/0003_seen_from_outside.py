"""Times of attempts, calls in the order of arrival, health of deployments, kept content."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
