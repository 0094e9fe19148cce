"""Secure aggregation, pure: keys, labels, masks, shares and fixed point; no network, no disk.

The server learns the sum of the hospitals' updates and nothing about one of them, even when it lies. Each
hospital adds to its update, in the integers modulo 2^b, one mask that it shares with each neighbour (which
cancel in the sum) and one of its own; what opens the own masks of those who answered, and the pairwise masks
of those who vanished, is held in shares by the others.

Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth, "Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS 2017 (protocol with the consistency check of section 6); beyond 20
hospitals the sparse graph of Bell, Bonawitz, Gascón, Lepoint, Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020. What is assumed and what is not held: docs/threat-model.md.
"""
