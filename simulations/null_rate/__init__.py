"""How often the statistics of groups cry wolf, and how surely they find a wolf: `consilium-sim null-rate`."""
