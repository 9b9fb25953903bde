"""What learned routers are made from and judged by, read from the ledger. Learning and choosing are `economics`'."""
