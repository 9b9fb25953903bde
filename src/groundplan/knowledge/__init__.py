"""Documents: taken in (`intake`), governed, searched with the permissions of whoever asks (`retrieval`), evaluated.

Answers are made by the gateway; whom a person belongs to is `identity`'s.
"""
