"""People, groups, duties, sign-in, keys: live policy, each change of which `service` makes in one transaction.

Who must approve what is governance's.
"""
