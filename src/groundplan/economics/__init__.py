"""What calls cost, what they will cost, and which model is worth it. `price` is the one formula of a cost.

Pure, but for what keeps experiments, replays and evidence; what was spent lies in the ledger.
"""
