"""Patient-level differential privacy: the plan of a mechanism, clipping, noise, the ledger."""
