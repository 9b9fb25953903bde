"""Where each workload runs: `planner` solves for the company, `verify` checks without the solver's code.

Pure: prices, loads and what was seen are arguments. What is served is made in `release`.
"""
