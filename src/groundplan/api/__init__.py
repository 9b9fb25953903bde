"""The control process: the HTTP API that console and CLI use, and the work beside its requests. Start with `app`.

Routes are thin (`routes`); packages gather for them what several domains keep. Rules are those of the domains below.
"""
