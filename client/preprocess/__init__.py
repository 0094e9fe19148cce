"""From DICOM pixels to the arrays a network trains on; no training library is imported here."""

from client.preprocess.presentation import presentation
from client.preprocess.tensor import decode, to_tensor
from client.preprocess.volumes import assemble_volumes

__all__ = ["assemble_volumes", "decode", "presentation", "to_tensor"]
