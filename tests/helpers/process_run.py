"""One process of several: scores, selects and logs a run; prints a digest of what it saw.

Usage: process_run.py OUT DEVICES [PORT PROCESSES ID]
"""

import hashlib
import json
import pathlib
import sys

import jax

out, count = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_num_cpu_devices", count)
if len(sys.argv) > 3:
    port, processes, index = sys.argv[3:]
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(index))

import models  # noqa: E402
import numpy as np  # noqa: E402

import thicket_jax as tj  # noqa: E402

backend = "none" if count == 1 else "pmap"
batch = models.images()
params = models.params()
population = tj.population(jax.random.key(5), 37, (0.1, 0.3))
bits = tj.score(models.flat, params, population, None, backend=backend, block_size=2).items
found = tj.randopt(
    models.log_likelihood,
    params,
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
    run_dir=pathlib.Path(out) / "run",
)
votes = np.asarray(found.predict(batch))
digest = hashlib.sha256(np.ascontiguousarray(bits).tobytes()).hexdigest()
summary = {
    "bits": digest,
    "experts": np.asarray(found.experts.ids).tolist(),
    "values": np.asarray(found.scores.values, np.float64).tolist(),
    "votes": votes.tolist(),
    "table": found.table,
    "wrote": sorted(p.name for p in pathlib.Path(out).glob("run/*")),
    "process": jax.process_index(),
}
print("SUMMARY " + json.dumps(summary))
