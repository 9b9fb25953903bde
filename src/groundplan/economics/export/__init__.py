"""Exports of the book of costs: FOCUS for finance tools, statements for teams."""
