"""What became of routed calls: whether a router still expects what is seen, and what each route costs and is worth."""
