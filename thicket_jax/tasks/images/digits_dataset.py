"""The handwritten digits that scikit-learn ships, as a tensorflow-datasets builder.

1797 images of 8×8 by 43 people (the test part of the UCI set "Optical Recognition of Handwritten
Digits"), each pixel a count from 0 to 16. Prepared from the installed scikit-learn: no download.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

PEAK = 16  # the largest pixel value


class Digits(tfds.core.GeneratorBasedBuilder):
    """Images uint8 [8, 8, 1] from 0 to 16, labels 0 to 9, one split called `train`.

    Prepare it with `file_format="array_record"` and read it with `as_data_source`; neither needs
    TensorFlow. Items keep their place in scikit-learn's arrays as the feature `id`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "The digits as scikit-learn ships them."}
    # No downloads, so no checksums to look up: the base class' own lookup imports a package,
    # importlib_resources, that tensorflow-datasets 4.9.10 does not install.
    url_infos: ClassVar[dict[str, Any]] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8x8, as scikit-learn ships them.",
            homepage="https://archive.ics.uci.edu/dataset/80",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "id": tfds.features.Scalar(dtype=np.int32),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # nothing is downloaded
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            pixels = image.astype(np.uint8)[..., None]
            yield index, {"image": pixels, "label": int(label), "id": index}
