"""What a hospital does when it is asked: survey, train, threshold, evaluate, on its own images."""

from client.duties.imaging import ImagingDuties

__all__ = ["ImagingDuties"]
