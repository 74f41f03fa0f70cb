"""A small convolutional net in Flax NNX for images of any size, and its pretraining.

Under `vmap` over weights the compiler makes grouped convolutions of its layers. With one expert a
block, which is what `block_size="auto"` takes on a CPU, that is as fast as the same net written as
matrix products of patches on 8×8 images, faster on larger ones, and it compiles sooner.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from thicket_jax.tasks.images.conditions import mixture

FIRST_WIDTH, LAST_WIDTH = 16, 64
LAST_SIDE = 4
BATCH = 128
LEARNING_RATE = 3e-3

Params = dict[str, Any]


class ConvNet(nnx.Module):
    """Convolutions that halve the side until it is at most 4, means over quarters, one matrix."""

    def __init__(self, shape: tuple[int, int, int], classes: int, *, rngs: nnx.Rngs) -> None:
        """Makes a net for images of `shape` (height, width, channels)."""
        side, width, stride, before = min(shape[:2]), FIRST_WIDTH, 1, shape[2]
        self.depth = 0
        while self.depth == 0 or side > LAST_SIDE:
            side = -(-side // stride)
            draw = nnx.initializers.he_uniform()
            layer = nnx.Conv(before, width, (3, 3), stride, padding=1, kernel_init=draw, rngs=rngs)
            setattr(self, f"conv_{self.depth}", layer)
            self.depth, before, stride = self.depth + 1, width, 2
            width = min(2 * width, LAST_WIDTH)
        draw = nnx.initializers.lecun_uniform()
        self.out = nnx.Linear(4 * before, classes, kernel_init=draw, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, channels] → logits [B, C]."""
        for index in range(self.depth):
            x = jax.nn.relu(getattr(self, f"conv_{index}")(x))
        halves = [slice(0, -(-side // 2)) for side in x.shape[1:3]]
        rests = [slice(side // 2, side) for side in x.shape[1:3]]
        quarters = itertools.product(*zip(halves, rests, strict=True))
        return self.out(jnp.concatenate([x[:, r, c].mean((1, 2)) for r, c in quarters], -1))


@dataclasses.dataclass(frozen=True)
class Net:
    """The net as pure functions of its parameters, nested dicts of float32 arrays.

    Attributes:
      shape: (height, width, channels) of an image.
      classes: number of classes, C.
    """

    shape: tuple[int, int, int]
    classes: int

    def initialise(self, key: jax.Array) -> Params:
        """Draws parameters; the key is consumed."""
        return _initialise(self.shape, self.classes, key)

    def logits(self, params: Params, images: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
        """Images [B, H, W, channels] from 0 to 1 → logits float32 [B, C], computed in `dtype`."""
        cast = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        graph = nnx.split(_abstract(self.shape, self.classes))[0]
        return nnx.merge(graph, cast)(images.astype(dtype)).astype(jnp.float32)

    @property
    def depth(self) -> int:
        """The number of convolutions."""
        return _abstract(self.shape, self.classes).depth


@functools.lru_cache(maxsize=16)
def _abstract(shape: tuple[int, int, int], classes: int) -> ConvNet:
    """The net with shapes in place of parameters."""
    return nnx.eval_shape(lambda: ConvNet(shape, classes, rngs=nnx.Rngs(params=0)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initialise(shape: tuple[int, int, int], classes: int, key: jax.Array) -> Params:
    _, state = nnx.split(ConvNet(shape, classes, rngs=nnx.Rngs(params=key)))
    return nnx.to_pure_dict(state)


@functools.partial(jax.jit, static_argnums=(0, 4))
def pretrain(
    net: Net, key: jax.Array, images: jax.Array, labels: jax.Array, steps: int
) -> tuple[Params, jax.Array]:
    """Trains a net on images under a mixture of all conditions, drawn anew at every step.

    Adam with a cosine decay, cross-entropy, batches of 128 drawn with replacement: one compiled
    scan, the images already on the device.

    Args:
      net: the net; static.
      key: typed key; consumed.
      images: float32 [n, H, W, channels] from 0 to 1.
      labels: int32 [n].
      steps: number of updates; static.

    Returns:
      Parameters, and the loss of every step, float32 [steps].
    """
    start, draws = jax.random.split(key)
    optimiser = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

    def loss_of(params: Params, batch: jax.Array, truth: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(net.logits(params, batch), truth)
        return losses.mean()

    def step(carry: Any, index: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        which, how = jax.random.split(jax.random.fold_in(draws, index))
        items = jax.random.randint(which, (BATCH,), 0, len(images))
        batch = mixture(how, images[items])
        loss, slope = jax.value_and_grad(loss_of)(params, batch, labels[items])
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            change, state = optimiser.update(slope, state, params)
        return (optax.apply_updates(params, change), state), loss

    params = net.initialise(start)
    (params, _), losses = jax.lax.scan(step, (params, optimiser.init(params)), jnp.arange(steps))
    return params, losses
