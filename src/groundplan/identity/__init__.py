"""People, groups, duties, sign-in and keys: the live policy, which `service` changes, each change in one transaction.

Which approvals a change needs is decided by governance.
"""
