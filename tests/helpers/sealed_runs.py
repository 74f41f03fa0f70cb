"""A finished run directory, made by hand as a search makes one, with no model."""

import numpy as np
from reported_runs import record

from thicket_jax.experts.population import Population
from thicket_jax.reports import report
from thicket_jax.reports.results import build_results
from thicket_jax.runs import digests, files
from thicket_jax.runs import log as run_log
from thicket_jax.scoring.scores import Scores
from thicket_jax.search import manifest

NOISE = {"family": "gaussian", "where": None, "scale": "absolute", "version": 1}
RECIPE = {"prng": "threefry2x32", "key": [0, 7], "noise": NOISE}


def whole_record():
    """The five experts of `reported_runs`, with what config.json says of a population."""
    run = record()
    columns = {
        f"{name}s": [row[name] for row in run.experts["experts"]]
        for name in ("id", "sigma", "sign")
    }
    population = Population.from_json(RECIPE | columns)
    run.experts["population"] = dict(RECIPE)
    prints = {
        "params": "abc",
        "population": files.fingerprint((population.ids, population.sigmas, population.signs)),
    }
    run.config.update({**RECIPE, "task": "mine", "fingerprints": prints})
    return run


def scores_of(run, begin, end):
    """The scores of some experts of a record, as its search had them."""
    items = run.train[begin:end]
    values, failed = run.scores[begin:end].astype(np.float32), run.failed[begin:end]
    return Scores(np.where(failed, np.float32(-np.inf), values), failed, items)


def log_of(run, folder, resume=False):
    """Begins the run's log, or opens it again."""
    opened = run_log.RunLog.reopen if resume else None
    if opened is not None:
        return opened(folder, run.config, 5)
    return run_log.RunLog.create(folder, run.config, run.config, 5)


def search(run, folder, resume=False):
    """What a search does with a run directory, from its birth to its end."""
    log = log_of(run, folder, resume)
    try:
        if log.read_base() is None:
            base = np.array([0.5], np.float32)
            log.write_base(Scores(base, np.zeros(1, bool), run.base_train[None]))
        done = {start for start, _, _ in log.segments()}
        for start in sorted({0, 3} - done):
            log.append(start, scores_of(run, start, min(start + 3, 5)), 1.0)
            log.flush()
        manifest.write(run, folder)
        report.write(run, folder, build_results(run))
        digests.seal(folder)
    finally:
        log.close()
    return folder
