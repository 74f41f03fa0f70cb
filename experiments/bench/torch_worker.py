"""A PyTorch process beside ours: started once, asked in turn, idle while we are timed."""

import json
import pathlib
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import Any

from thicket_jax.errors import RunError

INSTALL = (
    'PyTorch is not installed, so its columns are left out; pip install ".[bench]", or name a '
    "Python that has it with --torch-python"
)


class TorchWorker:
    """Runs a program that answers requests; a context manager that ends the process."""

    def __init__(self, python: str, accelerator: bool, script: str = "torch_loop.py") -> None:
        """Starts `python`, an interpreter that has what the script imports.

        `accelerator`: use one where torch finds it. `script`: a file beside this one.
        """
        self.process = subprocess.Popen(
            [python, str(pathlib.Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self.ask("start", accelerator=accelerator)

    def __enter__(self) -> "TorchWorker":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the process: its input ends, so it returns."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def choose_threads(self, most: int, action: Callable[[], float]) -> None:
        """Gives PyTorch the number of threads, one or `most`, with which `action` is faster.

        The seconds of each, after one call to warm up, and the choice are kept in `about`.
        """
        found = {}
        for count in sorted({1, most}):
            self.ask("threads", count=count)
            action()
            found[count] = action()
        chosen = min(found, key=lambda count: found[count])
        self.ask("threads", count=chosen)
        self.about |= {"threads": chosen, "seconds_by_threads": found}

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer.

        Raises:
          RunError: the process ended instead; its own message is on standard error.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RunError(f"the PyTorch process ended at {do!r}; its message is above")
        return dict(json.loads(answer))


def has_torch(python: str, also: str = "numpy") -> bool:
    """Whether an interpreter can import torch, and another module `also`.

    Raises:
      RunError: there is no such interpreter.
    """
    try:
        found = subprocess.run(
            [python, "-c", f"import torch, {also}"],
            capture_output=True,
            check=False,
            text=True,
        )
    except OSError as error:
        raise RunError(f"--torch-python {python} cannot be run: {error.strerror}") from None
    return found.returncode == 0


def threads_text(about: dict[str, Any]) -> str:
    """Returns a sentence on where PyTorch ran."""
    return f"PyTorch ran on {about['device']} with {about['threads']} thread(s), the faster choice."
