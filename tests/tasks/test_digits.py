"""Task digits: the data set and its preparation, splits, conditions, the net, the task."""

import json
import math
import pathlib
import shutil
import struct
import types

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks import registry
from thicket_jax.tasks import task as task_module
from thicket_jax.tasks.images import conditions, datasets, figure
from thicket_jax.tasks.images import model as image_model
from thicket_jax.tasks.images import task as digits
from thicket_jax.tasks.images.digits_dataset import Digits

KEY = jax.random.key(3)
SMALL = {
    "condition": "inverted",
    "pretrain_steps": 40,
    "train_items": 40,
    "test_items": 60,
    "validation_items": 30,
}


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
    SHAPE = (14, 12, 3)


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


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder shared by the tests that do not damage it; the digits are prepared in it."""
    folder = tmp_path_factory.mktemp("cache")
    datasets.open_images("digits", folder / "tfds")
    return folder


@pytest.fixture(scope="module")
def task(cache):
    return digits.build(digits.Options(cache=str(cache), **SMALL))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


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


# Conditions.


def slow_rotation(image, angle):
    """Bilinear sampling, pixel by pixel: the angle is anticlockwise, with x right and y up."""
    H, W = image.shape[:2]
    out = np.zeros(image.shape)
    for row in range(H):
        for column in range(W):
            x, y = column - (W - 1) / 2, (H - 1) / 2 - row
            from_x = x * math.cos(angle) + y * math.sin(angle)
            from_y = y * math.cos(angle) - x * math.sin(angle)
            r, c = (H - 1) / 2 - from_y, from_x + (W - 1) / 2
            for i in (math.floor(r), math.floor(r) + 1):
                for j in (math.floor(c), math.floor(c) + 1):
                    if 0 <= i < H and 0 <= j < W:
                        out[row, column] += image[i, j] * (1 - abs(r - i)) * (1 - abs(c - j))
    return out


@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 9, 3)])
def test_rotation_is_the_slow_one(shape):
    image = jax.random.uniform(KEY, shape)
    for angle in (-1.0, 0.3, 0.8):
        found = conditions.rotate(image, jnp.float32(angle))
        np.testing.assert_allclose(found, slow_rotation(np.asarray(image), angle), atol=2e-5)
    quarter = conditions.rotate(jnp.ones((5, 5, 1)).at[0, 4].set(3), jnp.float32(math.pi / 2))
    assert quarter[0, 0, 0] == pytest.approx(3, abs=1e-4)  # top right goes to top left


def test_a_shift_moves_pixels_and_leaves_zeros():
    image = jnp.arange(1.0, 31).reshape(5, 6, 1)
    for down in (-2, 0, 1):
        for right in (-1, 0, 2):
            wanted = np.zeros((5, 6, 1))
            for row in range(5):
                for column in range(6):
                    if 0 <= row + down < 5 and 0 <= column + right < 6:
                        wanted[row + down, column + right] = image[row, column]
            found = conditions.shift(image, jnp.array([down, right]))
            np.testing.assert_array_equal(found, wanted)


def test_conditions_have_the_strength_they_say():
    ids = jnp.arange(600)
    image = jnp.zeros((9, 13, 1)).at[4, 6].set(1)

    def seen(name, image):
        images = jnp.broadcast_to(image, (600, *image.shape))
        return np.asarray(conditions.apply_condition(name, KEY, ids, images), np.float64)

    np.testing.assert_array_equal(seen("clean", image), np.broadcast_to(image, (600, 9, 13, 1)))
    np.testing.assert_array_equal(
        seen("inverted", image), 1 - np.broadcast_to(image, (600, 9, 13, 1))
    )
    places = np.argwhere(seen("shifted", image)[..., 0] == 1)
    assert len(places) == 600
    assert {tuple(p) for p in places[:, 1:] - [4, 6]} == {
        (down, right) for down in range(-2, 3) for right in range(-3, 4)
    }
    grey = seen("noisy", jnp.full((9, 13, 1), 0.5))
    assert grey.min() == 0 and grey.max() == 1
    inside = grey[(grey > 0) & (grey < 1)]
    # A normal of standard deviation .4 is within ±.5 with probability .7887.
    assert inside.size / grey.size == pytest.approx(0.7887, abs=4 * math.sqrt(0.17 / grey.size))
    # Two marks, above and right of the centre, tell the angle (x right, y up).
    marks = jnp.zeros((31, 31, 1)).at[3, 15].set(1)
    turned = seen("rotated", marks)[..., 0]
    rows, columns = np.mgrid[:31, :31]
    weight = turned.sum((1, 2))
    up, right = (
        ((15 - rows) * turned).sum((1, 2)) / weight,
        ((columns - 15) * turned).sum((1, 2)) / weight,
    )
    angles = np.rad2deg(np.arctan2(-right, up))
    assert -61 < angles.min() < -57 and 57 < angles.max() < 61
    assert abs(angles.mean()) < 4 * 60 / math.sqrt(3 * 600)


@pytest.mark.parametrize("name", list(conditions.CONDITIONS))
def test_an_item_looks_the_same_in_any_batch(name):
    ids = jnp.array([5, 900, 17, 2, 41])
    pictures = jax.random.uniform(KEY, (5, 8, 8, 1))
    whole = conditions.apply_condition(name, KEY, ids, pictures)
    order = np.array([3, 0, 4, 4, 3])
    part = conditions.apply_condition(name, KEY, ids[order], pictures[order])
    np.testing.assert_array_equal(part, whole[order])
    same = jnp.broadcast_to(pictures[:1], pictures.shape)
    differ = np.asarray(conditions.apply_condition(name, KEY, ids, same))
    assert (differ[0] != differ[1]).any() == (name not in ("clean", "inverted"))


def test_the_mixture_has_every_condition_in_equal_parts():
    image = jax.random.uniform(KEY, (8, 8, 1), minval=0.1, maxval=0.9)
    many = jnp.broadcast_to(image, (1000, 8, 8, 1))
    mixed = np.asarray(jax.jit(conditions.mixture)(KEY, many))
    clean = (mixed == np.asarray(image)).all((1, 2, 3)).mean()
    inverted = (mixed == 1 - np.asarray(image)).all((1, 2, 3)).mean()
    # A 25th of the shifts moves nothing.
    assert clean == pytest.approx(0.2 + 0.2 / 25, abs=4 * math.sqrt(0.16 / 1000))
    assert inverted == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 1000))


# The net.


def slow_convolution(x, kernel, bias, stride):
    B, H, W, _ = x.shape
    out = np.zeros((B, -(-H // stride), -(-W // stride), kernel.shape[-1]))
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            for i in range(3):
                for j in range(3):
                    r, c = row * stride + i - 1, column * stride + j - 1
                    if 0 <= r < H and 0 <= c < W:
                        out[:, row, column] += x[:, r, c] @ kernel[i, j]
    return out + bias


def slow_logits(params, x):
    depth = sum(name.startswith("conv_") for name in params)
    for index in range(depth):
        layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[f"conv_{index}"])
        x = slow_convolution(x, layer["kernel"], layer["bias"], 2 if index else 1)
        x = np.maximum(x, 0)
    H, W = x.shape[1:3]
    top, bottom, left, right = -(-H // 2), H // 2, -(-W // 2), W // 2
    parts = [x[:, :top, :left], x[:, :top, right:], x[:, bottom:, :left], x[:, bottom:, right:]]
    pooled = np.concatenate([part.mean((1, 2)) for part in parts], -1)
    return pooled @ np.asarray(params["out"]["kernel"]) + np.asarray(params["out"]["bias"])


@pytest.mark.parametrize(("shape", "depth"), [((4, 4, 1), 1), ((9, 6, 3), 2), ((28, 28, 1), 4)])
def test_the_net_is_the_slow_one(shape, depth):
    net = image_model.Net(shape, 5)
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(0, 0.2, leaf.shape).astype(leaf.dtype)),
        jax.eval_shape(net.initialise, KEY),
    )
    x = draw.uniform(size=(3, *shape)).astype(np.float32)
    assert net.depth == depth
    found = jax.jit(net.logits)(params, x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, slow_logits(params, x), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_computed_in_bfloat16():
    net = image_model.Net((8, 8, 1), 5)
    params = jax.eval_shape(net.initialise, KEY)
    text = str(
        jax.make_jaxpr(net.logits, static_argnums=2)(params, jnp.ones((3, 8, 8, 1)), "bfloat16")
    )
    products = [
        line for line in text.splitlines() if "conv_general" in line or "dot_general" in line
    ]
    assert len(products) == 3 and all("bf16[" in line for line in products)
    assert (
        jax.eval_shape(lambda p: net.logits(p, jnp.ones((3, 8, 8, 1)), "bfloat16"), params).dtype
        == jnp.float32
    )


def test_pretraining_learns_and_repeats():
    # The shapes of the fixture `task`, so that nothing is compiled again.
    net, labels = image_model.Net((8, 8, 1), 10), jnp.arange(1667) % 2
    half = jnp.zeros((8, 8, 1)).at[:, :4].set(0.9)
    pictures = jnp.where(labels[:, None, None, None] == 1, half[None], 0.1)
    params, losses = image_model.pretrain(net, KEY, pictures, labels, 40)
    assert losses.shape == (40,)
    assert losses[-5:].mean() < 0.3 * losses[:3].mean()
    again, _ = image_model.pretrain(net, KEY, pictures, labels, 40)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), params, again))
    other, _ = image_model.pretrain(net, jax.random.key(4), pictures, labels, 40)
    assert not jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), params, other))


# The task.


def test_score_predict_and_targets_agree(task):
    assert task.combines == ("majority_vote", "mean_probs") and task.metric == "accuracy"
    assert task.train["image"].shape == (40, 8, 8, 1) and task.test["image"].shape == (60, 8, 8, 1)
    np.testing.assert_array_equal(task.targets, task.test["label"])
    for batch in (task.train, task.test):
        outcome = jax.jit(task.score_fn)(task.params, batch)
        logits = np.asarray(jax.jit(task.predict_fn)(task.params, batch))
        assert outcome.dtype == jnp.float32 and logits.dtype == np.float32
        np.testing.assert_array_equal(outcome, logits.argmax(-1) == np.asarray(batch["label"]))
    shown = np.asarray(task.test["image"][:16]) * 255
    np.testing.assert_allclose(task.exhibits["test_images"], shown, atol=0.51)
    json.dumps(task.provenance)
    assert set(task.provenance["base_validation_accuracy"]) == set(conditions.CONDITIONS)


def test_images_are_the_sets_own_under_the_condition(task, cache):
    """Each test image is 1 − a distinct digit of scikit-learn's with that label."""
    truth = load_digits()
    where = {}
    for split in ("train", "test"):
        pixels = np.rint((1 - np.asarray(getattr(task, split)["image"])) * 16)[..., 0]
        matches = (pixels[:, None] == truth.images[None]).all((2, 3))
        assert (matches.sum(1) == 1).all()
        where[split] = matches.argmax(1)
        np.testing.assert_array_equal(getattr(task, split)["label"], truth.target[where[split]])
    assert not set(where["train"]) & set(where["test"])


def test_a_second_build_finds_the_base_and_keeps_the_test_items(task, cache):
    assert task.provenance["items"] == {
        "test": 60,
        "validation": 30,
        "train": 40,
        "pretrain": 1797 - 130,
    }
    again = digits.build(digits.Options(cache=str(cache), **SMALL))
    assert again.provenance["base"]["cache"] == "hit"
    options = digits.Options(cache=str(cache), **{**SMALL, "train_items": 50})
    more = digits.build(options)
    np.testing.assert_array_equal(more.test["image"], task.test["image"])
    for leaf, other in zip(*(jax.tree.leaves(t.params) for t in (task, again)), strict=True):
        np.testing.assert_array_equal(leaf, other)
    rotated = digits.build(
        digits.Options(cache=str(cache), **{**SMALL, "condition": "rotated"}, precision="bfloat16")
    )
    assert rotated.provenance["base"]["cache"] == "hit"  # one base serves every condition
    assert (np.asarray(rotated.test["image"]) != np.asarray(task.test["image"])).any()
    assert rotated.predict_fn(rotated.params, rotated.test).dtype == jnp.float32
    another = digits.build(digits.Options(cache=str(cache), **SMALL, seed=1))
    assert another.provenance["base"]["cache"] == "miss"
    assert (another.targets != task.targets).any()


def test_experts_side_by_side_score_as_one_by_one(task):
    population = tj.population(jax.random.key(1), 12, (0.02, 0.1), noise=tj.rademacher())
    together = tj.score(task.score_fn, task.params, population, task.train, block_size=4)
    for index in (0, 5, 11):
        alone = jax.jit(task.score_fn)(tj.perturb(task.params, population[index]), task.train)
        # An item may fall to the other side of a tie between two logits.
        assert abs(float(together.values[index]) - float(alone.mean())) <= 1 / 40
    assert len(np.unique(together.values)) > 1


def test_another_set_becomes_a_task(tmp_path):
    prepare(TinyColour, tmp_path / "tfds")
    small = {**SMALL, "condition": "noisy", "pretrain_steps": 2, "test_items": 20}
    options = digits.Options(cache=str(tmp_path), dataset="tiny_colour", **small)
    task = digits.build(options)
    assert task.provenance["items"]["pretrain"] == 120 - 90
    assert task.provenance["dataset"]["version"] == "1.2.0"
    logits = jax.jit(task.predict_fn)(task.params, task.test)
    assert logits.shape == (20, 7) and np.isfinite(logits).all()
    assert float(task.train["image"].max()) <= 1


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"condition": "upside_down"}, ArgumentError, "condition='upside_down'"),
        ({"precision": "float16"}, ArgumentError, "precision='float16'"),
        ({"prng": "rbg"}, ArgumentError, "prng='rbg'"),
        ({"train_items": 0}, ArgumentError, "train_items=0"),
        ({"pretrain_steps": 0}, ArgumentError, "pretrain_steps=0"),
        ({"pretrain_items": -1}, ArgumentError, "pretrain_items=-1"),
        ({"test_items": 1727}, DataError, "has 1797 items"),
        ({"pretrain_items": 1668}, DataError, "1668 pretrain = 1798"),
        ({"dataset": "nosuchset"}, DataError, "dataset='nosuchset'"),
    ],
)
def test_bad_options_are_one_clear_line(cache, changes, kind, said):
    options = digits.Options(cache=str(cache), **{**SMALL, **changes})
    with pytest.raises(kind) as error:
        digits.build(options)
    assert said in one_line(error)


def test_the_registry_has_the_task():
    module = registry.module("digits")
    assert module is digits and issubclass(module.Options, task_module.Options)
    assert module.draw is figure.draw


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_the_figure_shows_the_first_items(tmp_path, shape):
    draw = np.random.default_rng(0)
    record = types.SimpleNamespace(
        answers=draw.normal(size=(5, 30, 10)).astype(np.float32),
        base_answers=draw.normal(size=(30, 10)).astype(np.float32),
        random_answers=draw.normal(size=(2, 30, 10)).astype(np.float32),
        targets=draw.integers(0, 10, 30),
        exhibits={"test_images": draw.integers(0, 256, (16, *shape)).astype(np.uint8)},
    )
    ((name, caption),) = digits.draw(record, tmp_path / "figures")
    written = (tmp_path / "figures" / name).read_bytes()
    assert written.startswith(b"\x89PNG") and 10_000 < len(written) < 200_000
    assert "5 experts" in caption and "16 test items" in caption
