"""People and groups as the company's directory keeps them here by SCIM 2.0: `resources` has what a directory may ask.

What a change means for live policy is `identity.service`'s.
"""
