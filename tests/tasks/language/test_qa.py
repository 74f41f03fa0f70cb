"""Questions and answers of a user: graders, columns and prompts of their own."""

import numpy as np
import pytest
from language_tasks import OWN, asked, build, said, write

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks.language import qa
from thicket_jax.text.prompts import open_tokenizer

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


def test_messages_go_through_the_chat_template(models, tmp_path, in_process):
    messages = [
        [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{i} and 2?"}]
        for i in range(2)
    ]
    rows = [{"question": each, "answer": "2"} for each in messages]
    data = str(write(tmp_path / "chats.jsonl", rows))
    task = build(qa, models / "chat", data=data, train_items=1, test_items=1)
    chat = open_tokenizer(models / "chat")
    tokens, start = (np.asarray(task.problem.train[name]).ravel() for name in ("tokens", "start"))
    assert tokens[start[0] :].tolist() in [chat.chat(each) for each in messages]
    with pytest.raises(DataError, match="list of messages, and there is no chat template in"):
        build(qa, models / "plain", data=data, train_items=1, test_items=1)
    with pytest.raises(DataError, match="system message of its own; leave --system out"):
        build(qa, models / "chat", data=data, train_items=1, test_items=1, system="Be brief.")
    with pytest.raises(ArgumentError, match="cannot hold the messages of question"):
        build(qa, models / "chat", data=data, train_items=1, test_items=1, prompt="{question}!")
    other = [{"question": [{"text": f"{i} and 2?"}], "answer": "2"} for i in range(2)]
    data = str(write(tmp_path / "other.jsonl", other))
    with pytest.raises(DataError, match="neither text nor a list of messages"):
        build(qa, models / "chat", data=data, train_items=1, test_items=1)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_json_is_refused_with_its_line(word, models, tmp_path, in_process):
    place = tmp_path / "nan.jsonl"
    place.write_text(
        '{"question": "1?", "answer": 1}\n{"question": "2?", "answer": ' + word + "}\n"
    )
    with pytest.raises(DataError, match=rf"nan\.jsonl line 2: {word} is not JSON"):
        build(qa, models / "plain", data=str(place), train_items=1, test_items=1)
