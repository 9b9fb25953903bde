"""The facts of calls, and the SQL that reads them: `model` is what a call leaves, `queries` the shapes of the API.

Facts come by the gateway's journal; what they mean is for the domains above.
"""
