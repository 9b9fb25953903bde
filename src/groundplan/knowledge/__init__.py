"""Documents: ingested (`intake`), governed, searched with the permissions of the person who asks (`retrieval`), and
evaluated.

The gateway generates answers; `identity` knows the groups of people.
"""
