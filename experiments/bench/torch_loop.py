"""The 1-D experiment as one writes it in PyTorch: a loop over experts, data made on the host.

What the benchmarks compare with. A program of its own, without JAX and without thicket_jax: it
reads one JSON request a line from standard input and answers each with one JSON line, so that the
two libraries never share a thread pool and their runs can be alternated.
"""

import json
import math
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CONTEXT, STEPS = 10, 60
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_model() -> nn.Sequential:
    """Returns the MLP 10-128-128-128-128-1 with ReLU."""
    layers: list[nn.Module] = [nn.Linear(CONTEXT, 128), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 1))


def load_weights(model: nn.Sequential, arrays: Any) -> None:
    """Copies kernels [in, out] and biases into the model."""
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for index, layer in enumerate(linear):
            layer.weight.copy_(torch.from_numpy(arrays[f"kernel_{index}"].T.copy()))
            layer.bias.copy_(torch.from_numpy(arrays[f"bias_{index}"].copy()))


@torch.no_grad()
def roll_out_error(model: nn.Module, context: torch.Tensor, future: torch.Tensor) -> float:
    """Returns the mean squared error of the roll-out over all sequences at once."""
    window, values = context, []
    for _ in range(future.shape[1]):
        value = model(window)
        values.append(value)
        window = torch.cat([window[:, 1:], value], dim=1)
    return float(((torch.cat(values, dim=1).float() - future.float()) ** 2).mean())


@torch.no_grad()
def perturb(
    model: nn.Module, base: list[torch.Tensor], seed: int, sigma: float, device: str
) -> None:
    """Sets the model to base + sigma · noise, the noise from the expert's own seed."""
    generator = torch.Generator(device).manual_seed(seed)
    for parameter, origin in zip(model.parameters(), base, strict=True):
        noise = torch.randn(origin.shape, generator=generator, device=device)
        parameter.copy_(origin + sigma * noise)


class Scoring:
    """The loop over experts, with its data ready."""

    def __init__(self, path: str, device: str) -> None:
        """Reads parameters and sequences from an npz file."""
        arrays = np.load(path)
        self.device = device
        self.model = make_model()
        load_weights(self.model, arrays)
        self.model.to(device)
        self.base = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.context = torch.from_numpy(arrays["context"]).to(device)
        self.future = torch.from_numpy(arrays["future"]).to(device)

    def run(self, num: int, sigma: float, dtype: str) -> dict[str, Any]:
        """Scores experts 0 to num − 1; sigma 0 gives the base's own error."""
        kind = DTYPES[dtype]
        model, context = self.model.to(kind), self.context.to(kind)
        began = time.perf_counter()
        errors = []
        for seed in range(num):
            perturb(model, self.base, seed, sigma, self.device)
            errors.append(roll_out_error(model, context, self.future))
        return {"seconds": time.perf_counter() - began, "errors": errors}


def draw_sequence(rng: random.Random, x: Any) -> Any:
    """Draws one sequence of one of the six families at the points x, a numpy or a torch array."""
    lib: Any = torch if isinstance(x, torch.Tensor) else np
    family = rng.choice(["line", "sinusoid", "squarewave", "sawtooth", "harmonic", "sigmoid"])
    if family == "line":
        return rng.uniform(-0.5, 0.5) * x + rng.uniform(-1.0, 1.0)
    offset = rng.uniform(-0.5, 0.5)
    if family == "sigmoid":
        amplitude, phase = rng.uniform(0.5, 1.5), rng.uniform(-math.pi, math.pi)
        return amplitude * lib.tanh(0.1 * x + phase) + offset
    t = 4.0 * x + rng.uniform(0.0, 2 * math.pi)
    if family == "squarewave":
        amplitude, sharpness = rng.uniform(0.2, 0.4), rng.uniform(4.0, 6.0)
        return amplitude * lib.tanh(sharpness * lib.sin(t)) + offset
    amplitude = rng.uniform(0.8, 1.2)
    if family == "sinusoid":
        return amplitude * lib.sin(t) + offset
    if family == "harmonic":
        return amplitude * (0.5 * lib.sin(t) + 0.3 * lib.sin(8.0 * x)) + offset
    teeth = lib.sin(t) - 0.5 * lib.sin(2 * t) + 0.33 * lib.sin(3 * t) - 0.25 * lib.sin(4 * t)
    return 0.5 * amplitude * teeth + offset


class Sequences(Dataset):
    """`size` sequences of 11 points, each drawn with torch when it is asked for."""

    def __init__(self, size: int, rng: random.Random) -> None:
        """Keeps the points x."""
        self.size, self.rng = size, rng
        self.x = -2.5 + 0.1 * torch.arange(CONTEXT + 1)

    def __len__(self) -> int:
        """Returns the number of sequences."""
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        """Draws a sequence; the index only says that one is wanted."""
        return draw_sequence(self.rng, self.x)


def batches(data: str, iterations: int, batch: int, rng: random.Random) -> Iterator[torch.Tensor]:
    """Yields [batch, 11] tensors, made sample by sample.

    Args:
      data: `dataset`, a Dataset and a DataLoader as one writes them; or `numpy`, the leanest loop
        on the host that makes the same sequences.
      iterations: how many batches.
      batch: sequences in each.
      rng: draws them.
    """
    if data == "dataset":
        yield from DataLoader(Sequences(iterations * batch, rng), batch_size=batch)
        return
    x = -2.5 + 0.1 * np.arange(CONTEXT + 1)
    for _ in range(iterations):
        yield torch.from_numpy(np.stack([draw_sequence(rng, x) for _ in range(batch)])).float()


def pretrain(data: str, iterations: int, batch: int, seed: int, device: str) -> dict[str, Any]:
    """Trains on the next value with Adam; returns seconds, those spent on data, and the loss."""
    torch.manual_seed(seed)
    model = make_model()
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    model.to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.perf_counter()
    data_seconds, loss, clock = 0.0, torch.zeros(()), began
    for points in batches(data, iterations, batch, random.Random(seed)):
        data_seconds += time.perf_counter() - clock
        points = points.to(device)
        loss = nn.functional.mse_loss(model(points[:, :-1]), points[:, -1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        clock = time.perf_counter()
    last = loss.item()  # waits for a device that runs ahead
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "data_seconds": data_seconds, "last_loss": last}


def peak(dtype: str, shapes: list[list[int]], repeats: int, device: str) -> dict[str, float]:
    """Returns the largest rate of a matrix product [m, k] @ [k, n], floating operations/s."""
    best = 0.0
    with torch.no_grad():
        for m, k, n in shapes:
            a = torch.randn(m, k, device=device).to(DTYPES[dtype])
            b = torch.randn(k, n, device=device).to(DTYPES[dtype])
            for _ in range(repeats + 1):
                began = time.perf_counter()
                product = a @ b
                if device != "cpu":
                    torch.cuda.synchronize()
                best = max(best, 2 * m * k * n / (time.perf_counter() - began))
                del product
    return {"flops": best}


def main() -> None:
    """Answers requests until the input ends."""
    device, scoring = "cpu", None
    for line in sys.stdin:
        request = json.loads(line)
        kind = request.pop("do")
        answer: dict[str, Any]
        if kind == "start":
            if request["accelerator"] and torch.cuda.is_available():
                device = "cuda"
            answer = {"torch": torch.__version__, "device": device}
        elif kind == "threads":
            torch.set_num_threads(request["count"])
            answer = {}
        elif kind == "load":
            scoring = Scoring(request["path"], device)
            answer = {}
        elif kind == "score":
            assert scoring is not None
            answer = scoring.run(**request)
        elif kind == "pretrain":
            answer = pretrain(device=device, **request)
        else:
            answer = peak(device=device, **request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
