"""Bad input of language-model tasks, as one types it."""

import json
import re
import shutil

import pytest
from language_cases import MBPP
from language_tasks import OWN, refused, write

from thicket_jax.tasks.language import shared

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def broken(models, tmp_path_factory):
    """Model folders, and data files, each with one thing wrong."""
    folder = tmp_path_factory.mktemp("broken")

    def spoiled(name, spoil):
        spoil(shutil.copytree(models / "plain", folder / name))

    def pickled(at):
        (at / "model.safetensors").rename(at / "pytorch_model.bin")

    def sharded(at):
        index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
        index["weight_map"]["model.norm.weight"] = "model-00002-of-00002.safetensors"
        (at / "model.safetensors").rename(at / "model-00001-of-00002.safetensors")
        (at / "model.safetensors.index.json").write_text(json.dumps(index))

    def truncated(at):
        whole = (at / "model.safetensors").read_bytes()
        (at / "model.safetensors").write_bytes(whole[:-100])

    def short(at):
        config = json.loads((at / "config.json").read_text())
        (at / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))

    spoiled("no_config", lambda at: (at / "config.json").unlink())
    spoiled("no_tokenizer", lambda at: (at / "tokenizer.json").unlink())
    spoiled("pickle", pickled)
    spoiled("shard", sharded)
    spoiled("truncated", truncated)
    spoiled("short", short)
    good = [{"question": f"Number {i}?", "answer": str(i)} for i in range(8)]
    write(folder / "good.jsonl", good)
    write(folder / "lacks.jsonl", [*good[:2], {"question": "Number 9?"}])
    write(folder / "words.jsonl", [{**row, "answer": "many"} for row in good])
    write(folder / "choices.csv", [{**row, "choices": "1, 2"} for row in good])
    write(folder / "foreign.jsonl", [{**row, "choices": ["x", "y"]} for row in good])
    (folder / "no_json.jsonl").write_text('{"question": "1?", "answer": "1"}\nquestion, answer\n')
    write(
        folder / "mbpp.jsonl",
        [{**MBPP.row(i), "test_list": "assert plus(1) == 1"} for i in range(4)],
    )
    write(
        folder / "tests.jsonl",
        [{**MBPP.row(i), "test_list": ["assert plus(1 = 1"]} for i in range(4)],
    )
    write(folder / "numbers.jsonl", [{"numbers": "1 2", "target": i} for i in range(4)])
    write(folder / "solution.jsonl", [{"problem": f"{i}?", "solution": "1"} for i in range(4)])
    smiles = [{"product": f"{'C' * i}O", "reactants": "water"} for i in range(1, 5)]
    write(folder / "smiles.jsonl", smiles)
    write(folder / "story.jsonl", [{"sentences": [f"Only one, {i}."]} for i in range(4)])
    (folder / "own.py").write_text(OWN)
    (folder / "raises.py").write_text("import nothing_like_it\n")
    return folder


QA_GOOD = ["qa", "--model", "{plain}", "--data", "{good}"]
BAD = {
    "no model": (["gsm8k", "--data", "{good}"], "--model is missing; give the folder"),
    "no data": (["gsm8k", "--model", "{plain}"], "--data is missing; give a file (JSONL, JSON"),
    "a name, not a folder": (
        ["qa", "--model", "Qwen/Qwen2.5-0.5B", "--data", "{good}"],
        "Qwen/Qwen2.5-0.5B/config.json is not there; --model takes the folder",
    ),
    "no config": (["stories", "--model", "{no_config}"], "no_config/config.json is not there"),
    "no tokenizer": (["stories", "--model", "{no_tokenizer}"], "no_tokenizer has no tokenizer"),
    "a pickle": (["stories", "--model", "{pickle}"], "only pytorch_model.bin, which is refused"),
    "a shard missing": (
        ["stories", "--model", "{shard}"],
        "model-00002-of-00002.safetensors",
    ),
    "truncated": (["stories", "--model", "{truncated}"], "model.safetensors is truncated"),
    "too long": (["stories", "--model", "{short}"], "is over the model's 64 positions (4 of 4"),
    "no template": ([*QA_GOOD, "--chat"], "--chat: the tokenizer in"),
    "no such file": ([*QA_GOOD[:-1], "nowhere.jsonl"], "nowhere.jsonl cannot be read: No such"),
    "a column missing": ([*QA_GOOD[:-1], "{lacks}"], "lacks.jsonl line 3 has no 'answer', only"),
    "no JSON": ([*QA_GOOD[:-1], "{no_json}"], "no_json.jsonl line 2: not JSON"),
    "another task's": (
        ["countdown", "--model", "{plain}", "--data", "{good}"],
        "good.jsonl line 1 has no 'numbers' or 'nums', only question, answer",
    ),
    "not the story's": (
        ["rocstories", "--model", "{plain}", "--data", "{good}"],
        "good.jsonl line 1 has no 'sentence1' or 'sentences'",
    ),
    "own column": ([*QA_GOOD, "--answer", "label"], "good.jsonl line 1 has no 'label', only"),
    "no number": (
        ["gsm8k", "--model", "{plain}", "--data", "{words}"],
        "its answer 'many' does not end with a number after ####; mend the row of",
    ),
    "no number in qa": (
        ["qa", "--model", "{plain}", "--data", "{words}", "--grader", "numeric"],
        "its answer 'many' is no number",
    ),
    "text for numbers": (
        ["countdown", "--model", "{plain}", "--data", "{numbers}"],
        "numbers='1 2' must be a list of whole numbers",
    ),
    "text for tests": (
        ["mbpp", "--model", "{plain}", "--data", "{mbpp}", "--allow-test-selection"],
        "must be a list of statements of Python",
    ),
    "tests that are no Python": (
        ["mbpp", "--model", "{plain}", "--data", "{tests}", "--allow-test-selection"],
        "its test 'assert plus(1 = 1' is no Python",
    ),
    "no boxed answer": (
        ["math500", "--model", "{plain}", "--data", "{solution}"],
        "it has no answer, and none in \\boxed{} in its solution",
    ),
    "no SMILES": (
        ["uspto50k", "--model", "{plain}", "--data", "{smiles}"],
        "'water' is no SMILES string",
    ),
    "one sentence": (
        ["rocstories", "--model", "{plain}", "--data", "{story}"],
        "it has 1 sentences; 2 to 26 can be put in order",
    ),
    "too few items": ([*QA_GOOD, "--test-items", 7], "8 different items, and 2 training + 7 test"),
    "stories takes no data": (
        ["stories", "--model", "{plain}", "--data", "{good}"],
        "--data is of no use: stories makes its prompts; leave it out",
    ),
    "no tokens": ([*QA_GOOD, "--max-tokens", 0], "max_tokens=0 must be a whole number"),
    "no items": ([*QA_GOOD, "--train-items", 0], "train_items=0 must be a whole number"),
    "k above num": ([*QA_GOOD, "--k", 5, "--num", 2], "k=5 is larger than num=2"),
    "extraction": (
        ["gsm8k", "--model", "{plain}", "--data", "{good}", "--extraction", "loose"],
        "extraction='loose' is unknown; choose one of: strict, flexible",
    ),
    "reward": (
        ["rocstories", "--model", "{plain}", "--data", "{good}", "--reward", "any"],
        "reward='any' is unknown; choose one of: exact, position, adjacency",
    ),
    "precision": ([*QA_GOOD, "--precision", "int8"], "precision='int8' is unknown; choose one of"),
    "temperature": ([*QA_GOOD, "--sample-temperature", 0], "sample_temperature=0.0 must be 0.001"),
    "top p": ([*QA_GOOD, "--sample-top-p", 1.5], "sample_top_p=1.5 must be above 0"),
    "grade seconds": ([*QA_GOOD, "--grade-seconds", "nan"], "grade_seconds=nan must be above 0"),
    "workers": ([*QA_GOOD, "--grade-workers=-1"], "grade_workers=-1 must be 0 or more"),
    "rows": ([*QA_GOOD, "--rows=-1"], "rows=-1 must be 0 or more"),
    "memory": (
        ["mbpp", "--model", "{plain}", "--data", "{mbpp}", "--program-megabytes", 8],
        "program_megabytes=8 must be 64, which",
    ),
    "unknown grader": ([*QA_GOOD, "--grader", "rouge"], "grader='rouge' is unknown; choose one of"),
    "no grader module": (
        [*QA_GOOD, "--grader", "no_such_module:grade"],
        "there is no module no_such_module",
    ),
    "no grader file": ([*QA_GOOD, "--grader", "no_such.py:grade"], "there is no file"),
    "no grader function": ([*QA_GOOD, "--grader", "{own}:score"], "it has: grade, share"),
    "a grader that cannot be imported": (
        [*QA_GOOD, "--grader", "{raises}:grade"],
        "raised ModuleNotFoundError: No module named 'nothing_like_it'",
    ),
    "extraction without a reader": (
        [*QA_GOOD, "--extraction", "strict"],
        "--extraction is read by numeric and math, not by exact",
    ),
    "choices without a reader": (
        [*QA_GOOD, "--choices", "question"],
        "--choices is read by the grader contains-word, not by exact",
    ),
    "choices in a CSV": (
        ["qa", "--model", "{plain}", "--data", "{choices}", "--grader", "contains-word"]
        + ["--choices", "choices"],
        "its choices '1, 2' must be a list",
    ),
    "an answer that is no choice": (
        ["qa", "--model", "{plain}", "--data", "{foreign}", "--grader", "contains-word"]
        + ["--choices", "choices"],
        "is none of its choices",
    ),
    "prompt of an unknown column": (
        [*QA_GOOD, "--prompt", "{context} {question}"],
        "--prompt '{context} {question}' cannot be filled in (KeyError: 'context'); columns are: "
        "question, answer",
    ),
    "prompt that does not close": ([*QA_GOOD, "--prompt", "{question"], "cannot be filled in"),
    "prompt of an attribute": ([*QA_GOOD, "--prompt", "{question.x}"], "cannot be filled in"),
    "empty prompt": ([*QA_GOOD, "--prompt", ""], "--prompt is empty; give it a value"),
}


@pytest.mark.parametrize(("words", "found"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    words, found, models, broken, tmp_path, capsys, monkeypatch
):
    started = []
    monkeypatch.setattr(shared, "Graders", lambda *args, **kwargs: started.append(args))
    places = {path.stem: str(path) for path in broken.iterdir()} | {"plain": str(models / "plain")}
    small = {"--k": 1, "--num": 2, "--train-items": 2, "--test-items": 2, "--max-tokens": 4}
    small = [x for option in small.items() if option[0] not in words for x in option]
    given = [re.sub(r"^\{(\w+)\}", lambda m: places.get(m[1], m[0]), str(word)) for word in words]
    out = tmp_path / "out" / "run"
    line = refused(capsys, "run", given[0], "--quiet", *small, *given[1:], "--out", out)
    assert found in line
    assert not out.parent.exists() and not started
