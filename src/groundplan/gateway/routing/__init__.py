"""Model `auto`: which of the deployments that a call may use takes it, and why."""
