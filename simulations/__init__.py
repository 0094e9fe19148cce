"""Virtual federations: synthetic patients, scanners, hospitals, and the scenarios that use them."""
