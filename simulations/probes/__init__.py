"""What only a simulation can ask of a model: whether it sees the machine, and whether it uses what it sees.

One file a probe, one contract (`contract`); what each does and how it was checked: docs/probes.md.
"""
