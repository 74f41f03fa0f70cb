"""A search that several processes, or one, run: a digest of what each saw.

Usage: process_run.py OUT DEVICES PORT PROCESSES ID
"""

import hashlib
import json
import pathlib
import sys

import jax

if __name__ == "__main__":
    out, count, port, processes, index = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(count))
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(index))

import models
import numpy as np

import thicket_jax as tj
from thicket_jax.reports import figures


def search(folder, backend):
    """Scores and selects, logged in a folder if there is one; what this process saw, as JSON."""
    batch = models.images()
    found = tj.randopt(
        models.log_likelihood,
        models.params(),
        batch,
        key=jax.random.key(5),
        num=37,
        k=(1, 5),
        sigma=(0.1, 0.3),
        predict_fn=models.logits,
        test=batch,
        targets=np.asarray(batch["label"]),
        metric="accuracy",
        combine=[tj.majority_vote, tj.mean_probs],
        backend=backend,
        block_size=2,
        run_dir=folder and folder / "run",
    )
    return {
        "bits": hashlib.sha256(np.ascontiguousarray(found.scores.items).tobytes()).hexdigest(),
        "experts": np.asarray(found.experts.ids).tolist(),
        "values": np.asarray(found.scores.values, np.float64).tolist(),
        "votes": np.asarray(found.predict(batch)).tolist(),
        "table": found.table,
        "wrote": sorted(p.name for p in folder.glob("run/*")) if folder else [],
        "process": jax.process_index(),
    }


if __name__ == "__main__":
    figures.draw = lambda *_: []  # a report without pictures
    print("SUMMARY " + json.dumps(search(pathlib.Path(out), "pmap")))
