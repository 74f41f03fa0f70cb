"""Blocks of experts: devices, padding, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import BATCH, PARAMS, mapped_linear, per_item, population

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, MemoryLimitError
from thicket_jax.mapping import devices, programs
from thicket_jax.mapping.blocks import expert_map
from thicket_jax.mapping.functions import mapped
from thicket_jax.mapping.placement import place


@pytest.fixture(scope="module")
def slow():
    """The scores of 131 experts, mapped over at once."""
    experts = population(131)
    score = jax.vmap(
        lambda e: per_item(tj.perturb(PARAMS, e), BATCH),
        in_axes=(tj.Population(None, 0, 0, 0, experts.noise),),
    )
    return np.asarray(jax.jit(score)(experts))


@pytest.mark.parametrize("num", [1, 7, 8, 9, 64, 131])
def test_any_number_of_experts_on_eight_devices(num, slow):
    """N need not be a multiple of devices, blocks or calls: the padding is never seen."""
    experts = population(131)[:num]
    scores = tj.score(per_item, PARAMS, experts, BATCH, block_size=2)
    np.testing.assert_allclose(scores.items, slow[:num], atol=1e-6)


def test_params_and_data_are_put_on_the_devices_once():
    """While calls run, nothing may be transferred implicitly; shared arguments stay put."""
    ready = mapped_linear(block_size=1)
    experts = population(100)
    shared = (ready.params, ready.data, ready.scales)
    placed = [id(leaf) for leaf in jax.tree.leaves(shared)]
    with jax.transfer_guard_host_to_device("disallow"):
        chunks = list(ready.chunks(experts))
    assert len(chunks) > 1
    assert placed == [id(leaf) for leaf in jax.tree.leaves(shared)]
    for leaf in jax.tree.leaves(shared):
        assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == 8


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_nothing_crosses_between_devices(backend):
    """The compiled program has no collective at all: only the scores leave, at the end."""
    ready = mapped_linear(backend=backend, block_size=2)
    text = ready.program(population()).run.as_text()
    for word in ("all-gather", "all-reduce", "all-to-all", "collective", "reduce-scatter", "send("):
        assert word not in text
    assert "dot" in text or "fusion" in text


@pytest.mark.parametrize("block_size", [0, -1, 2.5, "many", True])
def test_a_block_size_that_is_none(block_size):
    with pytest.raises(ArgumentError, match="block_size=.* must be a whole number"):
        tj.score(per_item, PARAMS, population(), BATCH, block_size=block_size)


def test_an_unknown_backend():
    with pytest.raises(ArgumentError, match="backend='vmap' is unknown; choose one of: pmap"):
        tj.score(per_item, PARAMS, population(), BATCH, backend="vmap")


def out_of_memory(text="RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 bytes."):
    return jax.errors.JaxRuntimeError(text)


def test_out_of_memory_halves_the_block_and_goes_on(monkeypatch):
    """A fault at the seam: blocks above 2 never fit, and those of 2 stop fitting after a while."""
    real, sizes = devices.launch, []

    def launch(program, *arguments):
        block = arguments[4].shape[-1]
        sizes.append(block)
        if block > 2 or (block == 2 and sizes.count(2) > 1):
            raise out_of_memory()
        return real(program, *arguments)

    experts = population(200)
    expected = tj.score(per_item, PARAMS, experts, BATCH, block_size=1)
    monkeypatch.setattr(devices, "launch", launch)
    scores = tj.score(per_item, PARAMS, experts, BATCH, block_size=8)
    assert sorted(set(sizes), reverse=True) == [8, 4, 2, 1]
    np.testing.assert_allclose(scores.items, expected.items, atol=1e-6)


def test_one_expert_that_does_not_fit_is_one_clear_line(monkeypatch):
    def launch(program, *arguments):
        raise out_of_memory()

    monkeypatch.setattr(devices, "launch", launch)
    with pytest.raises(MemoryLimitError, match="one expert at a time") as caught:
        tj.score(per_item, PARAMS, population(), BATCH, block_size=4)
    assert "\n" not in str(caught.value)


def test_auto_refuses_a_batch_whose_program_needs_more_than_is_free(monkeypatch):
    monkeypatch.setattr(devices, "free_bytes", lambda device: 10)
    with pytest.raises(MemoryLimitError, match="does not fit .* it needs .* bytes"):
        # Of a function that nobody has scored: what "auto" chose is remembered.
        tj.score(lambda p, b: per_item(p, b), PARAMS, population(), BATCH)


def test_other_runtime_errors_are_not_swallowed(monkeypatch):
    def launch(program, *arguments):
        raise out_of_memory("INTERNAL: something else")

    monkeypatch.setattr(devices, "launch", launch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        tj.score(per_item, PARAMS, population(), BATCH, block_size=4)


def test_auto_takes_the_largest_block_that_fits(monkeypatch):
    def block(limit):
        monkeypatch.setattr(devices, "working_bytes", lambda device: limit)
        programs._KEPT.clear()  # what "auto" chose is remembered
        ready = expert_map(
            mapped(products), params, tj.gaussian(), None, place(params, devices=one)
        )
        experts = population(4096)
        return ready.block(experts), ready.program(experts).temporary_bytes

    def products(params, batch):
        del batch
        return jnp.tanh(params["w"] @ params["w"]).sum(0)

    params, one = {"w": jnp.zeros((64, 64))}, jax.devices()[:1]
    small, large = block(2**17), block(2**20)
    assert 1 <= small[0] < large[0]
    assert small[1] <= 2**18 and large[1] <= 2**21
