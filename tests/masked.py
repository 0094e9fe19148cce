"""Toy hospitals that are enrolled, and a plan whose rounds are masked."""

from __future__ import annotations

from pathlib import Path

from client.service import SiteService
from common.plan import Plan
from simulations.enrolment import enrol
from tests.toy import toy_plan, toy_service

NAMES = ("anna", "bert", "carla", "dora", "emil", "frida", "gustav", "hilde")


def masked_plan(names=NAMES[:5], **federation) -> Plan:
    """A toy plan with these hospitals and masked rounds."""
    chosen = {"aggregation": "secure", "least_sites": 3, "sites": list(names), "mask_bits": 32, **federation}
    return toy_plan(**chosen)


def enrolled(folder: Path, names=NAMES[:5], buckets=None, duties=None) -> list[SiteService]:
    """Toy hospitals under one roster; the consortium's folder lies beside them."""
    given = buckets or [100] * len(names)
    services = [
        toy_service(folder, name, bucket, duties and duties(name, bucket))
        for name, bucket in zip(names, given, strict=True)
    ]
    enrol([service.site for service in services], folder / "consortium")
    return services
