"""Answers that need no model: given before, shared by workers, replayed by `Idempotency-Key`."""
