"""Who must agree to what, by which rules calls are made, and what proves it: approvals in `service` and `approvals`.

Decisions are pure (`decide`); what was agreed becomes a blueprint in `release`.
"""
