"""Methods side by side on one scenario, over seeds: `consilium-sim compare` (docs/methods.md)."""
