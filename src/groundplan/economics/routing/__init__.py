"""Which model a call deserves: features, the learned router as a small artifact, decisions, training and evaluation."""
