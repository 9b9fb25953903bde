"""Periodic checks of the control process.

Each module checks one thing, and reports it as findings, mail, or the next blueprint; `api.background` says how often.
Nothing here answers a request.
"""
