"""Language-model tasks as tests build, ask and grade them."""

import csv
import json

import numpy as np
import pytest

from thicket_jax.cli import main
from thicket_jax.text.graders import find


def thicket(*words):
    return main.main([str(word) for word in words])


def refused(capsys, *words):
    """Returns the one line that a command is refused with."""
    assert thicket(*words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("thicket: ") and captured.out == ""
    return lines[0].removeprefix("thicket: ")


class InProcess:
    """Graders without processes: texts graded on the spot, answers compared with each class."""

    def __init__(self, spec, items, *, workers=None, timeout=10.0):
        self.grader, self.items = find(spec), json.loads(json.dumps(items))

    def grade(self, pairs):
        return [self.grader(text, self.items[index]) for index, text in pairs]

    def classes(self, answers):
        same = self.grader.same or (lambda a, b: a == b)
        out = np.full(answers.shape, -1, np.int32)
        for b in range(answers.shape[1]):
            firsts = []
            for m, answer in enumerate(answers[:, b]):
                if answer is not None:
                    known = (c for c, first in enumerate(firsts) if same(first, answer))
                    out[m, b] = next(known, len(firsts))
                    if out[m, b] == len(firsts):
                        firsts.append(answer)
        return out

    def close(self):
        pass


def write(path, rows):
    """Writes rows in the format that the file's name says; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps({"version": 1, "data": rows}))
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def build(module, model, **options):
    small = {"train_items": 2, "test_items": 2, **options}
    return module.build(module.Options(model=str(model), **small).resolved())


def asked(tokenizer, *batches):
    """The prompts of some batches, read back from their tokens."""
    rows = [(batch, c, r) for batch in batches for c, r in np.argwhere(batch["row"] >= 0)]
    return [tokenizer.decode(b["tokens"][c, r, b["start"][c, r] :]) for b, c, r in rows]


def said(tokenizer, *texts):
    """What the decoder would return had every one of n experts said its texts, [n][B]."""
    ids = [[[*tokenizer.encode(text), 1] for text in row] for row in texts]
    width = max(len(tokens) for row in ids for tokens in row)
    tokens = [[tokens + [1] * (width - len(tokens)) for tokens in row] for row in ids]
    found = np.asarray(tokens, np.int32)[:, None]
    return {"tokens": found, "finite": np.ones(found.shape[:3], bool)}


OWN = """
from thicket_jax.text.grading import Outcome

def grade(text, item):
    digits = sum(map(str.isdigit, text))
    return Outcome(text.strip() or None, len(set(text)) / 4, {"digits": digits})

def share(text, item):
    return item["Frage"], len(text) / item["answer"]
"""
