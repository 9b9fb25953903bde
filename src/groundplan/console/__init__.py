"""The pages of the console: rendered on the server from answers of the HTTP API, and working without JavaScript.

A module for each section, mounted by `app`. Pages decide nothing, and read no database.
"""
