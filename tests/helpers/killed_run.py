"""A logged search whose host grading is slowed down, for a test that kills it.

Usage: killed_run.py RUN_DIR SECONDS_PER_CALL RESUME
"""

import json
import sys
import time

import jax

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)

import jax.numpy as jnp
import models
import numpy as np

import thicket_jax as tj


def answers(params, batch):
    """Predicted labels, graded on the host."""
    return models.logits(params, batch).argmax(-1).astype(jnp.int32)


def search(run_dir, pause, resume):
    """Runs or resumes the search; returns its table and scores."""
    batch = models.images()
    labels = np.asarray(batch["label"])

    def grade(outputs):
        time.sleep(pause)
        return (outputs == labels).astype(np.float32)

    return tj.randopt(
        answers,
        models.params(),
        batch,
        key=jax.random.key(1),
        num=100,
        k=(1, 10),
        sigma=(0.3, 0.6),
        predict_fn=models.logits,
        test=batch,
        targets=labels,
        metric="accuracy",
        combine=[tj.majority_vote, tj.mean_probs],
        grade=grade,
        block_size=1,
        run_dir=run_dir,
        resume=resume,
    )


if __name__ == "__main__":
    found = search(sys.argv[1], float(sys.argv[2]), sys.argv[3] == "resume")
    print(json.dumps(found.table["ensemble"]))
