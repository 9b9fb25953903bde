"""What a place costs and whether it may be used: facts and their defaults, demand, queueing, cost terms, rules."""
