"""Per-patient clipping with one backward pass: every layer by the cheapest exact way (Bu et al. 2022).

A step runs the network forward once and asks autograd for the gradients of the layers' outputs only.
Of each layer, input and output gradient are kept. From them come the squared norms of every patient's
weight gradient, and, once all norms are known, the sum of the clipped gradients.
"""
