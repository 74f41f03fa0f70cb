"""How a model is asked: worked examples, stop strings, template arguments, temperature."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from language_cases import CASES, MBPP, QA
from language_models import make_checkpoint
from language_tasks import asked, build, refused, said, write

from thicket_jax.cli import landscape, machine, parsing
from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.runs import files
from thicket_jax.tasks.language import (
    asking,
    countdown,
    gsm8k,
    math500,
    mbpp,
    olympiadbench,
    qa,
    shared,
    shots,
    stories,
)
from thicket_jax.text.data.splits import open_split
from thicket_jax.text.graders import find
from thicket_jax.text.prompts import LABELS, open_tokenizer

pytest.importorskip("transformers")

TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>{{ mood }}{% endif %}"
)


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A checkpoint whose template ends turns with a token that no config names."""
    from tokenizers import AddedToken, Tokenizer

    folder = make_checkpoint(
        tmp_path_factory.mktemp("talker"),
        says="0123456789 #\n",
        vocab_size=266,
        max_position_embeddings=8192,
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(x, special=True) for x in ("<|turn|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    place = folder / "tokenizer_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"chat_template": TEMPLATE}))
    return folder


@pytest.fixture
def data(tmp_path):
    return str(write(tmp_path / "all.jsonl", [QA.row(i) for i in range(9)]))


@pytest.fixture
def spec_of(monkeypatch, tmp_path):
    """Returns what a task says of itself, and its rows, without a model."""
    monkeypatch.setattr(shared, "build", lambda options, spec, split, tell: (spec, split))

    def spec_of_(module, rows, **options):
        path = str(write(tmp_path / "rows.jsonl", rows))
        return build(module, tmp_path, data=path, allow_test_selection=True, **options)

    return spec_of_


SHOWING = {name.split()[0]: case for name, case in CASES.items() if name.endswith(("jsonl", "csv"))}


@pytest.mark.parametrize("name", SHOWING)
def test_a_worked_example_is_an_answer_that_its_own_grader_takes(name, spec_of, in_process):
    if name in ("math500", "olympiadbench"):
        pytest.importorskip("math_verify")
    case = SHOWING[name]
    spec, split = spec_of(case.module, [case.row(i) for i in range(4)], **case.options)
    for row in (*split.train, *split.test):
        outcome = find(spec.grader)(spec.shot(row), json.loads(json.dumps(spec.item(row))))
        assert outcome.score == 1
    assert not any(stop in spec.shot(row) for stop in case.module.Options.STOPS)


@pytest.mark.parametrize(
    ("module", "row", "shown"),
    [
        (gsm8k, {"question": "?", "answer": "So 4."}, "So 4.\n#### 4"),
        (math500, {"problem": "?", "answer": "4", "solution": "So."}, r"\boxed{4}."),
        (qa, {"question": "?", "answer": ["4", "5"]}, "4"),
        (math500, {"problem": "?", "answer": "4"}, "has no solution, which --few-shot would show"),
        (olympiadbench, {"question": "?", "final_answer": ["4"], "solution": []}, "has no sol"),
        (countdown, {"numbers": [2, 2], "target": 4}, "has no solution"),
        (mbpp, {**MBPP.row(0), "code": "", "task_id": 1}, "has no code, which --few-shot would"),
        (qa, {"question": "?", "answer": " "}, "is empty"),
    ],
)
def test_what_a_row_shows_as_its_answer(module, row, shown, spec_of):
    column = next(iter(row.keys() & {"question", "problem", "numbers", "text"}))
    others = [[1], [2], [3]] if column == "numbers" else ["1?", "2?", "3?"]
    spec, _ = spec_of(module, [row, *({**row, column: other} for other in others)])
    if shown.startswith("has no") or shown == "is empty":
        with pytest.raises(DataError, match=shown):
            spec.shot(row)
    else:
        assert spec.shot(row).endswith(shown)


def test_qa_shows_the_form_that_its_grader_wants(spec_of):
    rows = [{"question": f"{i}?", "answer": str(i)} for i in range(4)]
    for grader, extraction, form in (
        ("numeric", "strict", "#### {}"), ("math", "strict", r"\boxed{{{}}}"),
        ("numeric", "flexible", "{}"), ("math", "flexible", "{}"), ("exact", "strict", "{}"),
    ):  # fmt: skip
        spec, split = spec_of(qa, rows, grader=grader, extraction=extraction)
        assert spec.labels == LABELS
        assert all(spec.shot(row) == form.format(row["answer"]) for row in split.train)
    assert spec_of(qa, rows, prompt="Q: {question}")[0].labels == ("", "")


def test_examples_are_the_same_for_all_prompts_and_no_items(models, tokenizer, data, in_process):
    def shown(**options):
        task = build(qa, models / "plain", data=data, **options)
        prompts = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
        heads = {prompt.rpartition("Question: ")[0] for prompt in prompts}
        items = {prompt.rpartition("Question: ")[2] for prompt in prompts}
        assert len(heads) == 1 and len(items) == 4
        found = re.findall(r"Question: (Number .\?)\n\nAnswer: n .\n\n", heads.pop())
        assert items.isdisjoint(f"{each}\n\nAnswer:" for each in found)
        return found, files.fingerprint(task.problem.train)

    three, two, other = shown(few_shot=3), shown(few_shot=2), shown(seed=1, few_shot=3)
    assert three == shown(few_shot=3) and len(set(three[0])) == 3 and three[0][:2] == two[0]
    assert three[0] != other[0] and three[1] != two[1]
    with pytest.raises(ArgumentError, match="--few-shot 6 takes .* have 5 such; lower it, --train"):
        shown(few_shot=6)
    # An example that would be cut.
    with pytest.raises(ArgumentError, match="string 'n ' would cut answers like .* 'n .'; leave"):
        shown(few_shot=1, stop=("n ",))


def test_spare_rows_are_those_that_are_no_items(tmp_path):
    rows = [QA.row(i) for i in (0, 1, 2, 3, 3, 4, 0, 5)]
    train = write(tmp_path / "d" / "train.jsonl", rows)
    write(tmp_path / "d" / "test.jsonl", [QA.row(i) for i in (4, 9)])
    how = {"needed": ("question", "answer"), "train_items": 2, "test_items": 2, "seed": 0}
    split = open_split(tmp_path / "d", **how)
    assert split.train == rows[:2] and split.spare == [QA.row(i) for i in (2, 3, 5)]
    alone = open_split(train, **how)
    known = [*alone.train, *alone.test, *alone.spare]
    assert sorted(map(str, known)) == sorted(str(QA.row(i)) for i in range(6))
    numbers = (601, 602, 11, 12, 13, 5, 700, 701, 600)
    part = [{**MBPP.row(0), "text": f"{number}", "task_id": number} for number in numbers]
    ranges = open_split(
        write(tmp_path / "mbpp.jsonl", part),
        **how | {"needed": ("text",), "ranges": MBPP.module.part},
    )
    assert [row["task_id"] for row in ranges.spare] == [700, 701]


def test_a_story_and_a_task_without_answers_show_none(models, capsys):
    words = ["run", "stories", "--model", models / "plain", "--train-items", 2, "--test-items", 2]
    for option in (["--few-shot", 0], ["--task-stops"], ["--template", "mood=1"]):
        assert f"{option[0]} " in refused(capsys, *words, *option)
    spec = asking.Spec("own", "exact", str, dict)
    with pytest.raises(ArgumentError, match="--few-shot is of no use: own has no worked answers"):
        shots.choose(qa.Options(few_shot=1), spec, None)


def test_template_arguments_system_and_examples_go_through_the_template(talker, data, in_process):
    tokenizer = open_tokenizer(talker)

    def prompt(**options):
        task = build(qa, talker, data=data, **options)
        return task.provenance["asked"]["prompt"]

    end = "<|im_end|>"
    turns = prompt(system="Be brief.", few_shot=1, template=("mood=[1, 2]",)).split("<|turn|>")
    assert turns[1] == f"system: Be brief.{end}" and turns[-1] == "[1, 2]"
    assert re.fullmatch(r"user: Number .\?<.im_end.>", turns[2])
    assert turns[3] == f"assistant: {turns[2][13:14] and 'n ' + turns[2][13]}{end}"
    assert turns[4].startswith("user: Number ") and len(turns) == 6
    with pytest.raises(ArgumentError, match="--template mode: .* no such argument; it reads mood"):
        prompt(template=("mode=1",))
    with pytest.raises(ArgumentError, match="--template belongs to a chat template"):
        prompt(template=("mood=1",), chat=False)
    assert tokenizer.has_chat_template


def test_a_system_message_that_the_template_drops_is_refused(talker, data, tmp_path, in_process):
    folder = shutil.copytree(talker, tmp_path / "deaf")
    place = folder / "tokenizer_config.json"
    settings = json.loads(place.read_text())
    deaf = TEMPLATE.replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
    )
    place.write_text(json.dumps(settings | {"chat_template": deaf}))
    build(qa, folder, data=data)
    with pytest.raises(ArgumentError, match="--system: the chat template in .* reads no system"):
        build(qa, folder, data=data, system="Be brief.")


def test_answers_end_at_the_end_of_a_turn_and_at_stop_strings(
    talker, data, in_process, monkeypatch
):
    decoded = []
    monkeypatch.setattr(shared, "decoder", lambda config, *_, **__: decoded.append(config.eos_ids))
    tokenizer = open_tokenizer(talker)
    (turn,), (seven,), (end,) = (tokenizer.encode(x) for x in ("<|im_end|>", "7", "</s>"))
    task = build(qa, talker, data=data, stop=("7", "4\\n"))
    assert decoded == [(end, turn, seven)]
    assert task.provenance["asked"]["end tokens"] == ["</s>", "<|im_end|>"]
    assert task.provenance["asked"]["stop strings"] == ["7", "4\n"]
    words = [["12</s>3", "12<|im_end|>3"], ["3 74", "\n4\n"]]
    graded = task.problem.grade(said(tokenizer, *words))
    assert graded.texts.tolist() == [["12", "12"], ["3 ", "\n"]]
    assert graded.columns["tokens"].tolist() == [[3, 3], [3, 3]]
    digests = {bytes(task.problem.train["items"])}  # a run with other endings is another run
    for options in ({"stop": ("7",)}, {}, {"chat": False}, {"chat": False, "task_stops": False}):
        digests.add(bytes(build(qa, talker, data=data, **options).problem.train["items"]))
    assert len(digests) == 5 and decoded.pop() == (end,)
    del decoded[1:]
    build(qa, talker, data=data, chat=False, stop=("<|turn|>",))  # a token that no text has
    assert decoded[1:] == [(end, *tokenizer.encode("<|turn|>"))]


def test_a_tasks_own_stop_strings_are_for_plain_text(models, talker, data):
    def options(module=qa, model=talker, **more):
        return module.Options(model=str(model), data=data, **more).resolved()

    own = ("\nQuestion:",)
    assert options(model=models / "plain").stops() == options(chat=False).stops() == own
    assert options().stops() == options(chat=True).stops() == ()
    assert options(task_stops=True).stops() == own
    assert options(model=models / "plain", task_stops=False, stop=("#",)).stops() == ("#",)
    assert options(chat=False, stop=("#", r"\nQuestion:")).stops() == (*own, "#")
    assert options(stories).stops() == ()
    assert options(gsm8k, chat=False).stops()[0] == own[0]
    for module in {case.module for case in CASES.values()} | {stories}:
        assert all(stop.startswith("\n") for stop in module.Options.STOPS)


def test_a_record_has_the_options_that_do_something_and_gives_them_back(talker, data, tmp_path):
    later = {"template", "few_shot", "stop", "task_stops", "temperature"}
    assert later.isdisjoint(qa.Options(model="m").to_json())
    assert later.isdisjoint(stories.Options(model="m").resolved().to_json())
    more = {"stop": ("a", "b"), "template": ("mood=1",), "few_shot": 2, "temperature": 0.5}
    asked = qa.Options(model=str(talker), data=data, **more).resolved()
    stored = machine.recorded(json.loads(json.dumps(asked.to_json())), tmp_path)
    assert machine.stored_options(tmp_path, {"task": "qa", "options": stored}) == asked
    assert asked.task_stops is False and later <= stored.keys()
    before = {name: value for name, value in stored.items() if name not in later}
    assert machine.stored_options(tmp_path, {"task": "qa", "options": before}).stops() == ()


def test_training_answers_are_sampled_and_test_answers_greedy(models, data, in_process):
    def of(batch):
        return float(batch["temperature"]), float(batch["top_p"])

    def problem(**options):
        return build(qa, models / "plain", data=data, sample_top_p=0.5, **options).problem

    warm, cold = problem(temperature=0.25), problem()
    assert of(warm.train) == (0.25, 1.0) and of(cold.train) == (0.0, 1.0)
    for found in (warm, cold):
        assert of(found.answering.pieces[0]) == (0.0, 1.0)
        assert of(found.answering.sampled[0]) == (np.float32(0.7), 0.5)
    assert files.fingerprint(warm.train) != files.fingerprint(cold.train)
    assert files.fingerprint(warm.answering.pieces) == files.fingerprint(cold.answering.pieces)


def test_a_plane_of_sampled_answers_is_not_held_against_the_log():
    recipe = {"prng": "threefry2x32", "key": [0, 0], "noise": {}}
    row = {"id": 3, "sign": 1.0, "sigma": 0.5, "failed": False, "score": 0.25}
    record = SimpleNamespace(
        items_seen=None, experts={"population": recipe, "experts": [row]}, config={"options": {}}
    )
    plane = SimpleNamespace(kind="experts", marks={"first": (1, 0)})
    mine = recipe | {"ids": [3], "signs": [1.0], "sigmas": [0.5]}
    assert landscape._logged(record, plane, mine) == {"first": 0.25}
    record.config["options"]["temperature"] = 0.7
    assert landscape._logged(record, plane, mine) == {}


def test_options_may_be_repeated_where_they_are_texts():
    words = [
        "--stop",
        "a",
        "--stop=--b",
        "--stop",
        "\n",
        "--template",
        "a=1",
        "--template",
        "b=x y",
    ]
    read = parsing.parse(qa.Options, words, "thicket run qa")
    assert read.stop == ("a", "--b", "\n") and read.template == ("a=1", "b=x y")
    assert parsing.repeated(qa.Options) == {"stop", "template"}
    plain = parsing.parse(qa.Options, ["--num", "3"], "thicket run qa")
    assert plain.stop == () and plain.template == ()
    for words, found in (
        (["--stop", ""], "--stop is empty"),
        (["--stop"], "--stop"),
        (["--stop", "a", "b"], "--stop takes one text; give it again for 'b'"),
        (["--num", "1", "--stop", "a", "--num", "2"], "--num is given twice"),
    ):
        with pytest.raises(ArgumentError, match=found):
            parsing.parse(qa.Options, words, "thicket run qa")
