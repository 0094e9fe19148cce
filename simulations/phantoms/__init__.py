"""Synthetic chests: a patient is drawn as parameters, then rendered as X-ray line integrals with truth.

`draw_patient` and `draw_pose` draw chance and record it; `render` is a function of what was drawn.
Lengths are millimetres in the patient; x grows to the image's right (the patient's left), y downwards.
"""

from simulations.phantoms.anatomy import Anatomy, render
from simulations.phantoms.patient import (
    GRADES,
    Opacity,
    Patient,
    Pose,
    Projection,
    draw_patient,
    draw_pose,
    images_per_patient,
)
from simulations.phantoms.texture import mottle
from simulations.phantoms.view import PITCH_MM

__all__ = [
    "GRADES",
    "PITCH_MM",
    "Anatomy",
    "Opacity",
    "Patient",
    "Pose",
    "Projection",
    "draw_patient",
    "draw_pose",
    "images_per_patient",
    "mottle",
    "render",
]
