"""Sets of images: preparation, reading, damage, splits."""

import json
import shutil
import struct

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits
from tiny_images import Tiny, TinyColour, TinyGrey, one_line, picture, prepare, tiny_arrays

from thicket_jax.errors import DataError
from thicket_jax.tasks.images import datasets
from thicket_jax.tasks.images.digits_dataset import Digits

KEY = jax.random.key(3)


# The data set.


def test_the_set_is_scikit_learns(cache):
    opened = datasets.open_images("digits", cache / "tfds")
    assert (opened.shape, opened.classes, opened.peak, len(opened)) == ((8, 8, 1), 10, 16, 1797)
    source = Digits(data_dir=cache / "tfds").as_data_source(split="train")
    ids = np.array([item["id"] for item in source])
    assert sorted(ids) == list(range(1797))
    pixels, labels = opened.read(np.arange(1797))
    truth = load_digits()
    np.testing.assert_array_equal(pixels[..., 0], truth.images[ids])
    np.testing.assert_array_equal(labels, truth.target[ids])
    assert pixels.dtype == np.uint8 and labels.dtype == np.int32
    some, _ = opened.read(np.array([900, 3]))
    np.testing.assert_array_equal(some, pixels[[900, 3]])


def test_preparing_and_reading_is_quiet(tmp_path, capfd):
    opened = datasets.open_images("digits", tmp_path)
    opened.read(np.arange(5))
    prepare(TinyGrey, tmp_path)
    datasets.open_images("tiny_grey", tmp_path).read(np.arange(5))
    assert capfd.readouterr() == ("", "")


def test_two_preparations_at_once_both_give_the_whole_set(tmp_path, monkeypatch):
    generate = Digits._generate_examples
    nested = []

    def slowly(self):
        if not nested:  # the first to begin is the last to end
            nested.append(None)
            nested.append(len(datasets.open_images("digits", tmp_path)))
        yield from generate(self)

    monkeypatch.setattr(Digits, "_generate_examples", slowly)
    assert len(datasets.open_images("digits", tmp_path)) == 1797
    assert nested == [None, 1797]
    assert sorted(p.name for p in (tmp_path / "digits").iterdir()) == ["1.0.0"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("no space left on device")])
def test_an_interrupted_preparation_leaves_nothing_that_is_used(tmp_path, monkeypatch, stop):
    generate = Digits._generate_examples

    def interrupted(self):
        for index, item in enumerate(generate(self)):
            if index == 500:
                raise stop
            yield item

    expected = KeyboardInterrupt if stop is KeyboardInterrupt else DataError
    with monkeypatch.context() as patch, pytest.raises(expected) as error:
        patch.setattr(Digits, "_generate_examples", interrupted)
        datasets.open_images("digits", tmp_path)
    if expected is DataError:
        assert "no space left" in one_line(error)
    assert not (tmp_path / "digits" / "1.0.0").exists()
    # What a killed process leaves: the folder that it was writing.
    killed = tmp_path / "digits" / "incomplete.ABCDEF_1.0.0"
    killed.mkdir(parents=True)
    (killed / "digits-train.array_record-00000-of-00001").write_bytes(b"half")
    assert len(datasets.open_images("digits", tmp_path)) == 1797


def test_a_damaged_set_is_named(cache, tmp_path):
    place = tmp_path / "digits" / "1.0.0"
    shutil.copytree(cache / "tfds" / "digits" / "1.0.0", place)
    (data,) = place.glob("*.array_record*")
    whole = data.read_bytes()
    info = json.loads((place / "dataset_info.json").read_text())

    def refused():
        with pytest.raises(DataError, match="delete that folder") as error:
            opened = datasets.open_images("digits", tmp_path)
            opened.read(np.arange(len(opened)))
        assert str(place) in one_line(error)

    for size in (0, 100_000, len(whole) - 50):
        data.write_bytes(whole[:size])
        refused()
    data.write_bytes(whole[:90_000] + b"x" * 60_000 + whole[150_000:])
    refused()
    data.unlink()
    refused()
    data.write_bytes(whole)
    assert len(datasets.open_images("digits", tmp_path)) == 1797
    info["splits"][0]["shardLengths"] = ["1800"]
    (place / "dataset_info.json").write_text(json.dumps(info))
    refused()
    (place / "dataset_info.json").unlink()
    refused()


# Any other set.


@pytest.mark.parametrize("kind", [TinyGrey, TinyColour])
def test_any_prepared_set_can_be_read(tmp_path, kind):
    prepare(kind, tmp_path)
    opened = datasets.open_images(kind.name, tmp_path)
    pixels, labels = opened.read(np.arange(len(opened)))
    truth, classes = tiny_arrays(kind)
    assert (opened.split, opened.version, opened.peak) == ("train", "1.2.0", 255)

    def ordered(pixels, labels):
        return sorted(
            (image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)
        )

    assert ordered(pixels, labels) == ordered(truth, classes)


def test_tensorflow_datasets_own_format_reads_alike(tmp_path):
    place = prepare(TinyGrey, tmp_path / "array_record")
    builder = TinyGrey(data_dir=tmp_path / "array_record")
    expected = datasets.open_images("tiny_grey", tmp_path / "array_record").read(np.arange(120))
    other = tmp_path / "tfrecord" / "tiny_grey" / "1.2.0"
    shutil.copytree(place, other, ignore=shutil.ignore_patterns("*array_record*"))
    info = (other / "dataset_info.json").read_text()
    (other / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    records = b""
    for item in builder.as_data_source(split="train"):
        item = {**item, "image": picture(item["image"])}
        data = builder.info.features.serialize_example(item)
        records += struct.pack("<QI", len(data), 0) + data + struct.pack("<I", 0)
    file = other / "tiny_grey-train.tfrecord-00000-of-00001"
    file.write_bytes(records)
    opened = datasets.open_images("tiny_grey", tmp_path / "tfrecord")
    for found, wanted in zip(opened.read(np.arange(120)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(opened.read(np.array([77, 5]))[0], expected[0][[77, 5]])
    for cut in (len(records) - 3, len(records) // 2):
        file.write_bytes(records[:cut])
        with pytest.raises(DataError, match="damaged"):
            datasets.open_images("tiny_grey", tmp_path / "tfrecord")


def test_a_set_that_tensorflow_datasets_knows_is_found_where_it_was_prepared(tmp_path):
    with tfds.core.registered.skip_registration():

        class MNIST(Tiny):
            VERSION = tfds.core.Version("3.0.1")
            CLASSES = 10

    prepare(MNIST, tmp_path)
    opened = datasets.open_images("mnist", tmp_path)
    assert (len(opened), opened.classes, opened.version) == (120, 10, "3.0.1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nosuchset", "neither known"),
        ("../digits", "cannot be opened"),
        ("", "cannot be opened"),
        ("mnist:9.9.9", "3.0.1"),
        ("imdb_reviews", "features are: text, label"),
        ("tiny_unsized", "all of one size"),
        ("tiny_four_channels", "1 or 3 channels"),
        ("tiny_without_label", "features are: image, kind"),
        ("tiny_far_away", "127.0.0.1:9 cannot be reached"),
        ("tiny_needs_module", "a_module_that_nobody_has"),
    ],
)
def test_a_set_that_cannot_be_had_is_one_clear_line(tmp_path, monkeypatch, capfd, name, said):
    # Port 9 of this machine, where nothing listens, is asked directly and not through a proxy.
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DataError) as error:
        datasets.open_images(name, tmp_path)
    line = one_line(error)
    assert said in line and repr(name) in line
    assert capfd.readouterr() == ("", "")


# Splits.


def test_splits_never_share_an_item():
    for seed in range(40):
        draw = np.random.default_rng(seed)
        counts = {name: int(draw.integers(1, 60)) for name in ("test", "train", "pretrain")}
        total = (180, max(sum(counts.values()), 60))[seed == 39]  # the last: hardly any to spare
        splits = datasets.split_items(jax.random.key(seed), total, counts)
        assert {name: len(items) for name, items in splits.items()} == counts
        dealt = np.concatenate(list(splits.values()))
        assert len(set(dealt)) == len(dealt) and dealt.min() >= 0 and dealt.max() < total
    again = datasets.split_items(jax.random.key(seed), total, counts)
    assert all((again[name] == splits[name]).all() for name in counts)
    assert (np.diff(splits["pretrain"]) < 0).any()  # shuffled
    other = datasets.split_items(jax.random.key(seed + 1), total, counts)
    assert not all((other[name] == splits[name]).all() for name in counts)


def test_too_few_items_says_how_many():
    with pytest.raises(DataError, match=r"has 10 items, and 6 test \+ 5 train = 11"):
        datasets.split_items(KEY, 10, {"test": 6, "train": 5})
    assert len(datasets.split_items(KEY, 11, {"test": 6, "train": 5})["train"]) == 5
