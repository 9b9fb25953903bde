"""The command `groundplan`: one module for each command or group, imported by `main` on use; commands use the HTTP API
only.

`up`, `startup`, `processes` and `listeners` run the installation. Rules are the API's.
"""
