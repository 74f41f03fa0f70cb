"""Questions and answers of a user: graders, columns and prompts of their own."""

import numpy as np
import pytest
from language_tasks import OWN, asked, build, said, write

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks.language import qa

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("grader", "row", "right", "wrong", "answer"),
    [
        ("exact", {"answer": ["2", "two"]}, "Two.", "twofold", "two"),
        ("exact", {"answer": 2}, " 2", "12", "2"),
        ("numeric", {"answer": 1234.0, "error": "none"}, "It is $1,234.", "1,23", "1234"),
        ("numeric", {"answer": "so\n#### 72"}, "#### 72.00", "#### 7", "72"),
        ("math", {"answer": r"\frac12"}, "It is $0.5$.", r"\boxed{2}", r"\frac{1}{2}"),
        ("contains-word", {"answer": "man"}, "a man!", "a woman", "a man"),
        (
            "contains-word",
            {"answer": "red", "choices": ["red", "infrared"]},
            "not infrared but red",
            "infrared",
            "red",
        ),
    ],
)
def test_qa_takes_a_grader_by_name(
    grader, row, right, wrong, answer, models, tokenizer, tmp_path, in_process
):
    if grader == "math":
        pytest.importorskip("math_verify")
    rows = [{"question": f"{i}?", **row} for i in range(2)]
    more = {"choices": "choices", "prompt": "{question} ({choices})"} if "choices" in row else {}
    data = str(write(tmp_path / "all.jsonl", rows))
    task = build(
        qa, models / "plain", data=data, grader=grader, train_items=1, test_items=1, **more
    )
    graded = task.problem.grade(said(tokenizer, [right], [wrong]))
    assert graded.items.tolist() == [[1], [0]]
    if answer is not None:
        assert graded.answers[0, 0] == answer
    if more:
        assert "? (red, infrared)" in asked(tokenizer, task.problem.train)[0]


def test_qa_takes_own_columns_an_own_grader_and_an_own_prompt(
    models, tokenizer, tmp_path, monkeypatch, in_process
):
    (tmp_path / "my_grades.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    rows = [{"Frage": f"Wie {i}?", "Wert": 4 + i, "Wo": "Ulm"} for i in range(4)]
    write(tmp_path / "all.json", rows)
    for grader in ("my_grades:share", "my_grades.py:share", str(tmp_path / "my_grades.py:share")):
        task = build(
            qa,
            models / "plain",
            data="all.json",
            question="Frage",
            answer="Wert",
            grader=grader,
            prompt="{Wo}, {question:>8} {{}}",
        )
        found = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
        assert sorted(found) == [f"Ulm, {'Wie ' + str(i) + '?':>8} {{}}" for i in range(4)]
        graded = task.problem.grade(said(tokenizer, ["abcd", "ab"]))
        wert = [4 + int(text[-5]) for text in found[:2]]
        np.testing.assert_allclose(graded.items, [[4 / wert[0], 2 / wert[1]]])
        assert graded.answers[0].tolist() == [f"Wie {w - 4}?" for w in wert]
    assert task.provenance["grader"] == str(tmp_path / "my_grades.py:share")


def test_messages_have_no_place_in_a_prompt_of_ones_own(models, tmp_path, in_process):
    rows = [{"question": [{"role": "user", "content": f"{i}?"}], "answer": "2"} for i in range(2)]
    data = str(write(tmp_path / "chats.jsonl", rows))
    with pytest.raises(ArgumentError, match="cannot hold the messages of question"):
        build(qa, models / "chat", data=data, train_items=1, test_items=1, prompt="{question}!")


@pytest.mark.parametrize(
    ("column", "prompt", "found"),
    [
        (["a", 2], "{more}", "a, 2"),
        (["a", 2], "{more[1]}", "2"),
        ({"x": "y"}, "{more[x]}", "y"),
        (2.5, "{more:.2f}", "2.50"),
        ("e", "{more!r}", "'e'"),
        ({"x": "y"}, "{more}", None),
        ([{"x": "y"}], "{more}", None),
        ({"x": ["y", {"z": 1}]}, "{more[x]}", None),
        (["a", None], "{more}", None),
        (None, "{more}", None),
    ],
)
def test_a_prompt_has_no_value_as_python_writes_it(
    column, prompt, found, models, tokenizer, tmp_path, in_process
):
    rows = [{"question": f"{i}?", "answer": "2", "more": column} for i in range(2)]
    data = str(write(tmp_path / "all.jsonl", rows))
    options = {"data": data, "train_items": 1, "test_items": 1, "prompt": prompt}
    if found is None:
        with pytest.raises(DataError, match="neither text nor a list of texts; mend the row of"):
            build(qa, models / "plain", **options)
    else:
        task = build(qa, models / "plain", **options)
        assert asked(tokenizer, task.problem.train) == [found]


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ({"grader": "exact"}, {"answer": ["2", {"x": 1}]}),
        ({"grader": "exact"}, {"answer": {"x": 1}}),
        ({"grader": "math"}, {"answer": [["2"]]}),
        ({"grader": "contains-word", "choices": "of"}, {"answer": "2", "of": ["2", {"x": 1}]}),
        ({"grader": "contains-word", "choices": "of"}, {"answer": "2", "of": ["2", None]}),
    ],
)
def test_an_answer_and_choices_are_texts(options, row, models, tmp_path, in_process):
    data = str(write(tmp_path / "all.jsonl", [{"question": f"{i}?", **row} for i in range(2)]))
    with pytest.raises(DataError, match=r"in it, which is no text; mend the row of"):
        build(qa, models / "plain", data=data, train_items=1, test_items=1, **options)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_json_is_refused_with_its_line(word, models, tmp_path, in_process):
    place = tmp_path / "nan.jsonl"
    place.write_text(
        '{"question": "1?", "answer": 1}\n{"question": "2?", "answer": ' + word + "}\n"
    )
    with pytest.raises(DataError, match=rf"nan\.jsonl line 2: {word} is not JSON"):
        build(qa, models / "plain", data=str(place), train_items=1, test_items=1)
