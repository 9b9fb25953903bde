"""From a workspace to the blueprint that is served: `plan` says what would change, `service` does it, `undo` goes back.

The only place in which the domains meet.
"""
