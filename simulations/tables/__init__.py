"""Hospitals whose patients are rows of a table: the same rounds, ledger and door as for images.

`consilium-sim table simulations/tables/heart_disease.toml --data DIR` runs one.
"""
