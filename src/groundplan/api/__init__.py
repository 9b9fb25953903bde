"""The control process: the HTTP API that console and CLI use, and background work. The entry point is `app`.

Routes (`routes`) are thin; the other packages assemble data that several domains hold. Rules are those of the domains
below.
"""
