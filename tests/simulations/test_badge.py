"""What a report says of itself: virtual patients, or real images in a simulated federation."""

from __future__ import annotations

from dataclasses import replace

from client.report.page import site_html
from server.reports.consortium import report_html
from tests.client.site_report_data import site_data
from tests.server.report_records import PLAN, realistic

VIRTUAL = ("Simulation: virtual hospitals", "Simulation: virtual patients")
REAL = "Simulated federation of real images"


def test_the_consortiums_report_says_which() -> None:
    record = replace(realistic(), simulated=True)
    real = replace(record, plan_toml=PLAN.replace('source = "synthetic"', 'source = "csv"'))
    assert VIRTUAL[0] in report_html(record)
    assert REAL not in report_html(record)
    assert REAL in report_html(real)
    assert VIRTUAL[0] not in report_html(real)
    assert REAL not in report_html(replace(real, simulated=False))


def test_a_hospitals_own_report_says_which() -> None:
    data = site_data()
    assert VIRTUAL[1] in site_html(data)
    real = site_html(replace(data, real_images=True))
    assert REAL in real
    assert VIRTUAL[1] not in real
    assert REAL not in site_html(replace(data, real_images=True, simulated=False))
