"""A provider's bill or usage export against the ledger: read, matched with attempts, and each difference explained."""
