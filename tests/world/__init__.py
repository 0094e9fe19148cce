"""A whole federation of real processes on loopback, for tests: authority, api, edge, SuperLink, tunnels, nodes."""
