"""Training data and evaluations of learned routers, read from the ledger. `economics` learns and chooses."""
