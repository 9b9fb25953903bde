"""Cost terms: what the cost of one attempt consists of, and exact division of an amount by weights."""
