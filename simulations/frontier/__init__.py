"""Utility against privacy: one federated study under many settings, on the same hospitals, in one curve."""
