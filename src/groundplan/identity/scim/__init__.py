"""People and groups that the company's directory provisions by SCIM 2.0: `resources` has the operations.

Their effect on live policy is `identity.service`'s.
"""
