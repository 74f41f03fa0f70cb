"""Whether what a run says of its experts fits together; holds for runs without digests too."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from thicket_jax.runs.files import fingerprint
from thicket_jax.scoring.scores import Scores
from thicket_jax.selection.ranking import ranking

_RELATIVE = 1e-5  # of the mean size of what is summed: float32 means of other orders


def experts_fault(experts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Returns what is wrong with experts.json, in words; empty if nothing is.

    Ids, sigmas, signs, key and law are those of config.json; ranks are those of the scores.
    """
    rows, recipe = experts["experts"], experts["population"]
    for name in ("prng", "key", "noise"):
        if name in config and config[name] != recipe[name]:
            return f"its {name} is not that of config.json"
    columns = {name: [row[name] for row in rows] for name in ("id", "sigma", "sign")}
    wanted = config.get("fingerprints", {}).get("population")
    dtypes = {"id": np.int32, "sigma": np.float32, "sign": np.float32}
    found = fingerprint(tuple(np.asarray(columns[name], dtypes[name]) for name in dtypes))
    if wanted is not None and found != wanted:
        return "its ids, sigmas and signs are not those that config.json has the digest of"
    if any((row["score"] is None) != row["failed"] for row in rows):
        return "an expert failed and has a score, or did not and has no score"
    values = np.array([-np.inf if row["failed"] else row["score"] for row in rows], np.float32)
    failed = np.array([row["failed"] for row in rows], bool)
    seen = np.array([row["items"] for row in rows], np.int32) if "selection" in experts else None
    order = ranking(Scores(values, failed, seen=seen))
    if any(rows[i]["rank"] != rank for rank, i in enumerate(order.tolist())):
        return "its ranks are not those of the scores"
    return ""


def means_fault(
    experts: Mapping[str, Any], train: np.ndarray | None, base_train: np.ndarray | None
) -> str:
    """Returns which score is not the mean of its items, in words; empty if all are.

    Args:
      experts: experts.json.
      train: float32 [N, B], or None; NaN where an item was not computed.
      base_train: float32 [B], or None.
    """
    if base_train is not None and not _is_mean(experts["base"]["score"], base_train):
        return "the base's score is not the mean of its items in items.npz"
    if train is None:
        return ""
    for row, items in zip(experts["experts"], train, strict=True):
        there = ~np.isnan(items)
        if row["failed"]:
            continue
        if not _is_mean(row["score"], items[there]):
            return f"the score of expert {row['id']} is not the mean of its items in items.npz"
        if "selection" in experts and row["items"] != there.sum():
            return f"expert {row['id']} has other items in items.npz"
        if "selection" not in experts or base_train is None:
            continue
        if not _is_mean(row["base"], base_train[there]):
            return f"the base beside expert {row['id']} is not the mean of its items in items.npz"
    return ""


def _is_mean(score: float | None, items: np.ndarray) -> bool:
    if score is None or not items.size:
        return False
    items = items.astype(np.float64)
    most = _RELATIVE * float(np.abs(items).mean())
    return math.isfinite(score) and abs(float(items.mean()) - score) <= most
