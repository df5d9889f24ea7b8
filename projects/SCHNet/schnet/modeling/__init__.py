"""The model: importing this package registers SCHNet's parts with Detectron2, nothing else."""

from schnet.modeling.clip import ClipBackbone, ClipEncoder
from schnet.modeling.ftm import FTM
from schnet.modeling.head import SRMHead
from schnet.modeling.losses import SegmentationLoss
from schnet.modeling.meta_arch import SCHNet
from schnet.modeling.sam import SamBackbone
from schnet.modeling.srm import SRM, SimModule

__all__ = [
    "FTM",
    "SRM",
    "ClipBackbone",
    "ClipEncoder",
    "SCHNet",
    "SRMHead",
    "SamBackbone",
    "SegmentationLoss",
    "SimModule",
]
