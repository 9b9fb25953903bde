"""The placement plan of the company for the routes: as served, re-planned, as a report. `placement` solves it."""
