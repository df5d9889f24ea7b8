"""From a data set's dict to what the model takes: `TrainMapper` with augmentation, `TestMapper`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import Metadata, MetadataCatalog

from schnet.data.augmentation import RandomCrop, RandomRotation, mirror_table
from schnet.data.catalog import require_registered
from schnet.data.color import ColorJitter
from schnet.data.geometry import resize_image
from schnet.data.label_maps import check_same_size, read_label, read_label_size
from schnet.data.reading import EncodedImage, UInt8Array, open_image
from schnet.data.view_sizes import Size, ViewSizes, testing_box
from schnet.errors import InputError

DatasetDict = dict[str, Any]


class TrainMapper:
    """Reads an image and its label map and augments both with one draw of random numbers."""

    @configurable
    def __init__(
        self,
        *,
        crop: RandomCrop,
        jitter: ColorJitter,
        mirror_pairs: Sequence[tuple[int, int]],
        num_classes: int,
        ignore_label: int,
        pad_color: tuple[int, int, int],
        refuse_colors: bool = False,
    ) -> None:
        """Keep the augmentations.

        Args:
            crop: scale, crop, rotation and mirroring.
            jitter: colour jitter; padding is not jittered.
            mirror_pairs: label values that change places when an image is mirrored.
            num_classes: K; label maps hold 0..K-1 or `ignore_label`.
            ignore_label: value of the padding in label maps.
            pad_color: RGB of the padding in images, 0..255.
            refuse_colors: refuse label maps whose three channels differ.
        """
        self.crop = crop
        self.jitter = jitter
        self.mirror_table = mirror_table(mirror_pairs)
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.pad_color = pad_color
        self.refuse_colors = refuse_colors

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read INPUT, MODEL.PIXEL_MEAN and the metadata of the first of DATASETS.TRAIN.

        Raises:
            InputError: that data set is not registered.
        """
        require_registered(cfg.DATASETS.TRAIN[0])
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        jitter = cfg.INPUT.COLOR_JITTER
        height, width = cfg.INPUT.SIZE
        low, high = cfg.INPUT.SCALE_RANGE
        return {
            "crop": RandomCrop(
                (height, width),
                (low, high),
                cfg.INPUT.FLIP_PROB,
                letterbox=cfg.INPUT.CROP == "letterbox",
                rotation=RandomRotation(cfg.INPUT.ROTATION_PROB, cfg.INPUT.ROTATION_SIGMA),
            ),
            "jitter": ColorJitter(
                brightness=jitter.BRIGHTNESS,
                contrast=jitter.CONTRAST,
                saturation=jitter.SATURATION,
                hue=jitter.HUE,
            ),
            "mirror_pairs": metadata.mirror_pairs,
            "num_classes": len(metadata.stuff_classes),
            "ignore_label": metadata.ignore_label,
            "pad_color": tuple(round(value) for value in cfg.MODEL.PIXEL_MEAN),
            "refuse_colors": metadata.get("refuse_colors", False),
        }

    def __call__(self, dataset_dict: DatasetDict, rng: np.random.Generator) -> DatasetDict:
        """Map one image.

        Args:
            dataset_dict: as `schnet.data.catalog.load_split` gives it.
            rng: source of every random number.

        Returns:
            'image' uint8 (3, h, w) RGB and 'sem_seg' uint8 (h, w) of INPUT.SIZE; 'file_name',
            'image_id', and 'height', 'width' of the stored image.

        Raises:
            InputError: a file is missing or damaged, the sizes of image, label map and index
                differ, the image has no label map, or it holds a value outside the range.
        """
        label = self._read_label(dataset_dict)
        encoded = open_image(dataset_dict["file_name"]).matching(label.shape)
        check_same_size(
            (encoded.height, encoded.width),
            label,
            encoded.path,
            dataset_dict["sem_seg_file_name"],
        )
        _check_recorded_size(dataset_dict, encoded)
        geometry = self.crop.draw(label.shape, rng)
        reduction = geometry.reduction if encoded.reducible else 1
        cut = geometry.cut_image(encoded.decode(reduction), reduction)
        image = geometry.place(self.jitter(cut, rng, geometry.inside), self.pad_color)
        sem_seg = geometry.place(geometry.cut_label(label), self.ignore_label)
        if geometry.mirror:
            sem_seg = cv2.LUT(sem_seg, self.mirror_table)  # type: ignore[assignment]
        return {
            "image": _as_tensor(image),
            # Bytes until they reach the model's device: eight times as many are slow to fill and to
            # hand over from a worker.
            "sem_seg": torch.from_numpy(np.ascontiguousarray(sem_seg)),
            **_identity(dataset_dict, encoded),
        }

    def _read_label(self, dataset_dict: DatasetDict) -> UInt8Array:
        path = dataset_dict.get("sem_seg_file_name")
        if path is None:
            raise InputError(
                f"the image {dataset_dict['file_name']} has no label map: training needs one for "
                "every image"
            )
        return read_label(
            path, self.num_classes, self.ignore_label, refuse_colors=self.refuse_colors
        )


class TestMapper:
    """Reads an image and resizes it as the model is to see it; nothing is cropped or random.

    Test-time augmentation needs the image in several sizes. They are made here, each from the
    original pixels and not from the fitted image: a larger view then shows more detail, and a
    smaller one is not blurred twice. It is also here that the loader's workers do it, and what
    they send is as large as the views, not as the photo.
    """

    # Its name begins as a test class's does; it is none.
    __test__ = False

    @configurable
    def __init__(
        self, *, box: Size, scales: Sequence[float] | None = None, in_windows: bool = False
    ) -> None:
        """Keep the sizes.

        Args:
            box: height and width in pixels that every image is fitted into, or of a window.
            scales: of the views for test-time augmentation, relative to the box; each > 0. None
                makes no views.
            in_windows: leave images at their own resolution, to be cut into windows.
        """
        self.sizes = ViewSizes(box, in_windows)
        self.scales = scales

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read INPUT.SIZE_TEST (or INPUT.SIZE where that is [0, 0]), AUG and SLIDING_WINDOW."""
        return {
            "box": testing_box(cfg),
            "scales": tuple(cfg.TEST.AUG.SCALES) if cfg.TEST.AUG.ENABLED else None,
            "in_windows": cfg.TEST.SLIDING_WINDOW.ENABLED,
        }

    def __call__(self, dataset_dict: DatasetDict) -> DatasetDict:
        """Map one image.

        Args:
            dataset_dict: as `schnet.data.catalog.load_split` gives it.

        Returns:
            What `from_array` gives, 'file_name', 'image_id', and 'sem_seg_file_name' where the
            image has a label map. 'height' and 'width' are those of the image as labelled.

        Raises:
            InputError: the file is missing or damaged, or its size is not the index's.
        """
        encoded = open_as_labelled(dataset_dict)
        _check_recorded_size(dataset_dict, encoded)
        mapped = {**self.from_array(encoded.decode()), **_identity(dataset_dict, encoded)}
        if "sem_seg_file_name" in dataset_dict:
            mapped["sem_seg_file_name"] = dataset_dict["sem_seg_file_name"]
        return mapped

    def from_array(self, image: UInt8Array) -> DatasetDict:
        """Map an image that is in memory.

        Args:
            image: uint8 (H, W, 3), RGB.

        Returns:
            'image' uint8 (3, h, w) RGB, of `ViewSizes.view_size`; 'box', height and width of the
            box that it was fitted into; 'height' H and 'width' W. With scales, 'views': a dict
            with such an 'image' and 'box' for each scale, in order.
        """
        height, width = image.shape[:2]
        mapped = {**self._view(image, 1.0), "height": height, "width": width}
        if self.scales is not None:
            mapped["views"] = [
                # At scale 1 it is the same tensor: no second copy goes through the loader.
                {name: mapped[name] for name in ("image", "box")}
                if scale == 1.0
                else self._view(image, scale)
                for scale in self.scales
            ]
        return mapped

    def _view(self, image: UInt8Array, scale: float) -> DatasetDict:
        height, width = image.shape[:2]
        resized = resize_image(image, self.sizes.view_size((height, width), scale))
        return {"image": _as_tensor(resized), "box": self.sizes.scaled_box(scale)}


def open_as_labelled(dataset_dict: DatasetDict) -> EncodedImage:
    """Open an image as its label map was drawn: as stored, or after its EXIF rotation.

    Args:
        dataset_dict: as `schnet.data.catalog.load_split` gives it. Without a recorded size the
            label map's header is read; without a label map the image comes as stored.

    Raises:
        InputError: a file is missing or no image.
    """
    encoded = open_image(dataset_dict["file_name"])
    if "height" in dataset_dict and "width" in dataset_dict:
        return encoded.matching((dataset_dict["height"], dataset_dict["width"]))
    if "sem_seg_file_name" in dataset_dict:
        return encoded.matching(read_label_size(dataset_dict["sem_seg_file_name"]))
    return encoded


def read_truth(dataset_dict: DatasetDict, metadata: Metadata) -> UInt8Array | None:
    """Read an image's label map as its data set has them; None where the image has none.

    Args:
        dataset_dict: as `schnet.data.catalog.load_split` gives it.
        metadata: of its data set.

    Raises:
        InputError: the file is missing, damaged or holds a label out of range.
    """
    path = dataset_dict.get("sem_seg_file_name")
    if not path:
        return None
    return read_label(
        path,
        len(metadata.stuff_classes),
        metadata.ignore_label,
        refuse_colors=metadata.get("refuse_colors", False),
    )


def _check_recorded_size(dataset_dict: DatasetDict, encoded: EncodedImage) -> None:
    height = dataset_dict.get("height", encoded.height)
    width = dataset_dict.get("width", encoded.width)
    if (height, width) != (encoded.height, encoded.width):
        raise InputError(
            f"the image {encoded.path} is {encoded.width}x{encoded.height} pixels (width x "
            f"height) but its index says {width}x{height}: write the index again with the data "
            "set's script in datasets/"
        )


def _identity(dataset_dict: DatasetDict, encoded: EncodedImage) -> DatasetDict:
    return {
        "file_name": dataset_dict["file_name"],
        "image_id": dataset_dict["image_id"],
        "height": encoded.height,
        "width": encoded.width,
    }


def _as_tensor(image: UInt8Array) -> torch.Tensor:
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    # As numpy's transposed copy, in a fifth of its time.
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)
