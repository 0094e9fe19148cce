"""`consilium-site doctor`: what stands between this machine and a round that completes, line by line."""
