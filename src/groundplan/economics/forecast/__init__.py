"""What will be asked and what it will cost: forecasts with intervals, budgets' runway, scenarios."""
