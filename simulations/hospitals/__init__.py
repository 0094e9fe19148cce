"""Virtual hospitals: a population, its scanners and its archive, written to disk as identified DICOM.

The ordinary client code reads what is written here and cannot tell that it is virtual.
"""

from simulations.hospitals.export import write_federation, write_hospital
from simulations.hospitals.probe import SameChests, probe_dataset, same_chests
from simulations.hospitals.spec import HospitalSpec, ImageTruth, Truth, default_federation

__all__ = [
    "HospitalSpec",
    "ImageTruth",
    "SameChests",
    "Truth",
    "default_federation",
    "probe_dataset",
    "same_chests",
    "write_federation",
    "write_hospital",
]
