"""FedProx: federated averaging in which each site is held near the model it began the round with.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks",
MLSys 2020, algorithm 2. The term mu/2 * |w - w_global|^2 is added to the loss at the site
(`federation.proximal_mu`, client/training); what the server does is federated averaging.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class FedProx(FedAvg):
    """The server's half of FedProx, which is FedAvg's."""
