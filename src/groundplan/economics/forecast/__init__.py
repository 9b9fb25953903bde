"""Forecasts of usage and cost with intervals, runway of budgets, scenarios."""
