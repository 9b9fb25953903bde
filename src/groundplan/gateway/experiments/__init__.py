"""Experiments on calls: arms of A/B tests, second answers of shadow experiments, replays of stored calls."""
