"""Federated optimisation, one file per algorithm: state in, state out."""
