"""Costs for the routes, gathered from ledger, blueprints and measured quantities; `book` has all of them.

The rules by which costs are divided, forecast and compared are in `economics`; nothing is decided here.
"""
