"""The command `groundplan`: a module for each command or group, found by `main`; over the HTTP API only.

What keeps `up` running is in `up`, `startup`, `processes`, `listeners`. Rules are the API's.
"""
