"""What is typed after `consilium-sim`, by what it is for; `simulations/cli.py` puts it together."""
