"""What everything costs, gathered from ledger, blueprints and measured quantities for the routes: `book` is the whole.

The rules by which costs are divided, forecast and compared are those of `economics`; nothing is decided here.
"""
