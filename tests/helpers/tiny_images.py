"""Small sets of images in every form that tensorflow-datasets has, and how they are prepared."""

import pathlib

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from thicket_jax.tasks.images import datasets


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Any set: the class attributes say what it looks like."""

    VERSION = tfds.core.Version("1.2.0")
    url_infos = None
    SHAPE = (28, 28, 1)
    CLASSES = 7
    COUNT = 120
    LABEL = "label"

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE),
            self.LABEL: tfds.features.ClassLabel(num_classes=self.CLASSES),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for index, (image, label) in enumerate(zip(*tiny_arrays(type(self)), strict=True)):
            yield index, {"image": picture(image), self.LABEL: int(label)}


def picture(array):
    """tensorflow-datasets encodes PIL's images without TensorFlow, arrays only with it."""
    return PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def tiny_arrays(kind):
    """Images uint8 and labels of a `Tiny` in the order of their keys."""
    draw = np.random.default_rng(len(kind.name))
    labels = np.arange(kind.COUNT) % kind.CLASSES
    noise = draw.integers(0, 120, (kind.COUNT, *kind.SHAPE))
    return (noise + 20 * labels[:, None, None, None]).astype(np.uint8), labels


class TinyGrey(Tiny):
    pass


class TinyColour(Tiny):
    SHAPE = (5, 4, 3)


class TinyUnsized(Tiny):
    SHAPE = (None, None, 3)


class TinyFourChannels(Tiny):
    SHAPE = (8, 8, 4)


class TinyWithoutLabel(Tiny):
    LABEL = "kind"


class TinyFarAway(Tiny):
    url_infos = {"http://127.0.0.1:9/images.zip": None, "http://127.0.0.1:9/labels.zip": None}  # noqa: RUF012


class TinyNeedsModule(Tiny):
    def _generate_examples(self):
        import a_module_that_nobody_has  # noqa: F401

        yield from ()


def prepare(kind, folder):
    builder = kind(data_dir=folder, file_format="array_record")
    with datasets.quietly():
        builder.download_and_prepare()
    return pathlib.Path(builder.data_path)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text
