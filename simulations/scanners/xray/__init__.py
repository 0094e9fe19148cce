"""Radiographs, stage by stage in physical order: from line integrals to stored values, with every setting recorded.

`draw` draws one exposure from a site's distributions; `expose` is a function of subject and exposure; `site_at` is the
site after months of drift and service. docs/scanners.md has every stage with its formula, unit and source.
"""

from simulations.scanners.history import AGEING, PATTERN, Drift, History, Service, history_of, site_at
from simulations.scanners.xray.catalogue import SITES
from simulations.scanners.xray.chain import STAGES, expose, expose_until, on_panel
from simulations.scanners.xray.exposure import Exposure, Marker, Subject, subject_of
from simulations.scanners.xray.machine import Display, Grid, Machine, Panel, Tube, Window
from simulations.scanners.xray.real import Guess, subject_from_image
from simulations.scanners.xray.site import DISTANCE_MM, Habits, Site, another_site, draw

__all__ = [
    "AGEING",
    "DISTANCE_MM",
    "PATTERN",
    "SITES",
    "STAGES",
    "Display",
    "Drift",
    "Exposure",
    "Grid",
    "Guess",
    "Habits",
    "History",
    "Machine",
    "Marker",
    "Panel",
    "Service",
    "Site",
    "Subject",
    "Tube",
    "Window",
    "another_site",
    "draw",
    "expose",
    "expose_until",
    "history_of",
    "on_panel",
    "site_at",
    "subject_from_image",
    "subject_of",
]
