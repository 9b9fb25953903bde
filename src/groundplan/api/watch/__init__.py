"""What the control process watches beside its requests.

Each module checks one thing again and again, and reports what it finds as findings, mail, or the next blueprint;
`api.background` says how often. Nothing here answers a request.
"""
