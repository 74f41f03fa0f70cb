"""Prompts: the real tokenizer, chat templates, left-padded batches."""

import json
import logging
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.prompts import (
    around,
    bucket,
    check_lengths,
    lay_out,
    open_tokenizer,
    question,
    render,
    unlay,
)

pytest.importorskip("transformers")
ROOT = pathlib.Path(__file__).parents[2]
STORIES = ROOT.parent / "shared" / "models" / "stories260K"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def stories():
    if not STORIES.exists():
        pytest.skip(f"{STORIES} is not there")
    return open_tokenizer(STORIES)


def folder_of(path, **changes):
    """A folder with the tokenizer of stories260K and a changed tokenizer_config.json."""
    if not STORIES.exists():
        pytest.skip(f"{STORIES} is not there")
    path.mkdir(exist_ok=True)
    config = json.loads((STORIES / "tokenizer_config.json").read_text()) | changes
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_bytes((STORIES / "tokenizer.json").read_bytes())
    return path


def message(kind, function, *args, **kwargs):
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def test_tokens_are_those_of_transformers(stories):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(STORIES, local_files_only=True)
    for text in ("Once upon a time", "", " a\n\nb", "Lily's café 🙂", "</s>x"):
        assert stories.encode(text) == theirs(text)["input_ids"]
    assert stories.encode("Once upon")[0] == theirs.bos_token_id == 1
    assert stories.encode("Once upon").count(1) == 1
    assert (stories.size, stories.eos_ids, stories.pad_id) == (512, (2,), 2)
    assert not stories.has_chat_template


def test_a_long_text_warns_nobody(stories, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        assert len(stories.encode("word " * 600)) > 512
    assert not caplog.records and capfd.readouterr().err == ""


def test_decoding_leaves_special_tokens_out(stories):
    text = "Once upon a time, there was Max."
    ids = stories.encode(text)
    assert stories.decode([*ids, 2]) == text
    assert stories.decode(np.asarray(ids)) == text
    assert stories.decode_many([ids, [], [1, 2]]) == [text, "", ""]
    assert stories.decode_many([]) == []


def test_a_chat_has_one_beginning_and_asks_for_an_answer(tmp_path):
    chatty = open_tokenizer(folder_of(tmp_path, chat_template=TEMPLATE))
    assert chatty.has_chat_template
    ids = chatty.chat([{"role": "user", "content": "hi"}])
    assert ids.count(1) == 1 and ids[0] == 1
    assert chatty.decode(ids) == "<user>hi\n<assistant>"
    # None applies what is there; False is plain text all the same.
    assert render(chatty, "hi") == render(chatty, "hi", chat=True) == ids
    assert render(chatty, "hi", chat=False) == chatty.encode("hi")
    told = render(chatty, "hi", "be brief")
    assert chatty.decode(told) == "<system>be brief\n<user>hi\n<assistant>"
    assert render(chatty, "hi", "be brief", chat=False) == chatty.encode("be brief\n\nhi")


def test_a_template_in_a_file_of_its_own(tmp_path):
    (folder_of(tmp_path) / "chat_template.jinja").write_text(TEMPLATE)
    assert open_tokenizer(tmp_path).has_chat_template


def test_a_template_that_asks_for_the_date_gets_the_same_one_every_day(tmp_path):
    template = (
        '{% if strftime_now is defined %}{% set day = strftime_now( "%d %b %Y" ) %}{% endif %}'
    )
    template += "{{ day }} {{ messages[0].content }}"
    dated = open_tokenizer(folder_of(tmp_path, chat_template=template))
    assert dated.decode(render(dated, "hi")) == "26 Jul 2024 hi"


def test_chat_without_a_template_is_refused(stories):
    text = message(ArgumentError, render, stories, "hi", None, True)
    assert text.startswith("--chat: the tokenizer in ") and "has no chat template" in text
    assert render(stories, "hi") == stories.encode("hi")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{{ raise_exception('System role\nnot supported') }}",
            "fails: TemplateError: System role",
        ),
        ("{% if", "fails: TemplateSyntaxError"),
        ([{"name": "tool_use", "template": "x"}], "no default specified"),
    ],
)
def test_a_template_that_fails_says_so(tmp_path, template, expected):
    chatty = open_tokenizer(folder_of(tmp_path, chat_template=template))
    text = message(DataError, render, chatty, "hi", "be brief")
    assert expected in text and text.endswith("say --no-chat for plain text")


def test_no_model_name_is_guessed_from(tmp_path):
    plain = open_tokenizer(folder_of(tmp_path / "gemma-2b-it-instruct-chat"))
    assert render(plain, "hi") == plain.encode("hi")


def test_the_padding_token_is_the_tokenizers_if_it_has_one(tmp_path):
    padded = open_tokenizer(folder_of(tmp_path, pad_token="<unk>", eos_token=None))
    assert (padded.pad_id, padded.eos_ids) == (0, ())


def test_a_folder_without_a_readable_tokenizer(tmp_path):
    assert "has no tokenizer (none of tokenizer.json" in message(
        DataError, open_tokenizer, tmp_path
    )
    gone = tmp_path / "meta-llama" / "Llama-3.2-1B"  # a name that transformers would look up
    assert "has no tokenizer" in message(DataError, open_tokenizer, gone)
    folder = folder_of(tmp_path)
    (folder / "tokenizer.json").write_text('{"version": ')
    assert f"the tokenizer in {folder} cannot be read" in message(DataError, open_tokenizer, folder)


def test_code_in_a_folder_is_not_run(tmp_path):
    folder = folder_of(
        tmp_path, auto_map={"AutoTokenizer": ["mine.Mine", None]}, tokenizer_class="Mine"
    )
    (folder / "mine.py").write_text("raise SystemExit('it ran')")
    text = message(DataError, open_tokenizer, folder)
    assert "cannot be read" in text


def test_without_transformers_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    folder = folder_of(tmp_path)
    text = message(DataError, open_tokenizer, folder)
    assert text == f'the tokenizer in {folder} needs transformers; pip install "thicket-jax[text]"'


def test_the_advice_to_install_pytorch_is_kept_off_the_terminal(stories):
    del stories
    code = f"""
import logging, sys
sys.modules["torch"] = None
from thicket_jax.text.prompts import open_tokenizer
assert "transformers" not in sys.modules
assert open_tokenizer({str(STORIES)!r}).encode("hi")[0] == 1
assert not logging.getLogger("transformers").disabled
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lengths_are_checked_against_the_positions():
    prompts = [[1] * 5, [1] * 9, [1] * 9, [1] * 8]
    check_lengths(prompts, 3, 12)
    check_lengths([], 3, 2)
    assert message(DataError, check_lengths, prompts, 4, 12) == (
        "item 1 (from 0) has a prompt of 9 tokens, and with --max-tokens 4 that is over the "
        "model's 12 positions (2 of 4 items are); use a smaller --max-tokens, shorter items, or a "
        "longer model"
    )
    assert "smaller --max-tokens" in message(DataError, check_lengths, prompts, 9, 12)
    assert "positions (4 of 4 items are); use shorter items" in message(
        DataError, check_lengths, prompts, 12, 12
    )
    assert "item 1 (from 0) has an empty prompt" in message(
        DataError, check_lengths, [[1], []], 1, 12
    )


def test_buckets_are_few_and_near():
    widths = [bucket(length) for length in range(1, 4097)]
    assert all(width >= length for length, width in enumerate(widths, 1))
    assert all(width - length < max(8, length / 4) for length, width in enumerate(widths, 1))
    assert widths == sorted(widths) and len(set(widths)) == 56
    assert [bucket(n) for n in (0, 128, 129, 512, 513)] == [8, 128, 160, 512, 640]
    assert [bucket(n, 1) for n in (1, 16, 17, 64, 65)] == [1, 16, 20, 64, 80]


def test_prompts_are_padded_left_and_laid_out_in_order():
    prompts = [[5], [6, 7, 8], [9, 10]]
    batch = lay_out(prompts, rows=2, chunks=2, width=4, pad_id=3, first=10)
    assert {name: array.dtype for name, array in batch.items()} == dict.fromkeys(
        ("tokens", "start", "row"), np.dtype(np.int32)
    )
    np.testing.assert_array_equal(
        batch["tokens"], [[[3, 3, 3, 5], [3, 6, 7, 8]], [[3, 3, 9, 10], [3, 3, 3, 3]]]
    )
    np.testing.assert_array_equal(batch["start"], [[3, 1], [2, 4]])
    np.testing.assert_array_equal(batch["row"], [[10, 11], [12, -1]])


def test_what_does_not_fit_is_refused():
    fits = {"rows": 1, "chunks": 2, "width": 2, "pad_id": 0}
    assert "3 prompts do not fit chunks=2 of rows=1" in message(
        ArgumentError, lay_out, [[1]] * 3, **fits
    )
    assert "prompt 8 has 3 tokens; they must be 1 to width=2" in message(
        ArgumentError, lay_out, [[1], [1, 2, 3]], **fits, first=7
    )
    assert "prompt 0 has 0 tokens" in message(ArgumentError, lay_out, [[]], **fits)


def test_unlay_undoes_the_layout():
    prompts = [[i + 1] * (1 + i % 3) for i in range(5)]
    batch = lay_out(prompts, rows=2, chunks=3, width=3, pad_id=0)
    outputs = np.stack([batch["tokens"], batch["tokens"] + 1])  # two experts
    found = unlay(outputs, 5)
    assert found.shape == (2, 5, 3)
    np.testing.assert_array_equal(found[0, :, -1], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(unlay(outputs[..., -1], 5), found[..., -1])


def with_special_tokens(folder, template):
    """A tokenizer that puts special tokens around a text; an empty template: none."""
    tokenizers = pytest.importorskip("tokenizers")
    place = folder_of(folder) / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(place))
    known = [(token, tokenizer.token_to_id(token)) for token in ("<unk>", "<s>", "</s>")]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=template or "$A", special_tokens=known
    )
    tokenizer.save(str(place))
    return open_tokenizer(folder)


@pytest.mark.parametrize("after", ["", "</s>", "<unk>", "</s> </s>", "<unk> </s>"])
@pytest.mark.parametrize("before", ["", "<s>", "<s> <unk>"])
def test_what_a_tokenizer_appends_is_left_out_and_what_it_puts_before_is_kept(
    tmp_path, before, after
):
    opened = with_special_tokens(tmp_path / "model", f"{before} $A {after}".strip())
    inner = opened._inner
    first = inner.convert_tokens_to_ids(before.split())
    last = inner.convert_tokens_to_ids(after.split())
    for text in ("one two", "", " a\n", "one </s>", "</s>", "<s> one", "Lily's café 🙂"):
        plain = list(inner(text, add_special_tokens=False)["input_ids"])
        assert list(inner(text)["input_ids"]) == [*first, *plain, *last]
        assert opened.encode(text) == [*first, *plain]
        assert render(opened, text) == render(opened, text, chat=False) == [*first, *plain]


def test_an_end_token_asked_for_by_the_settings_is_left_out(tmp_path):
    plain = open_tokenizer(folder_of(tmp_path / "plain"))
    told = open_tokenizer(folder_of(tmp_path / "told", add_eos_token=True, add_bos_token=True))
    for text in ("one two", "one </s>"):
        assert told.encode(text) == plain.encode(text)


SYSTEM = {"role": "system", "content": "Add."}
USER = {"role": "user", "content": "1 and 2?"}
SAID = {"role": "assistant", "content": "3"}


@pytest.mark.parametrize(
    "value", [[USER], [SYSTEM, USER], [USER, SAID, USER], [SYSTEM, USER, SAID, USER, SAID, USER]]
)
def test_a_conversation_is_messages_of_text(value):
    assert question(value, "q") == value
    more = [{**each, "name": None, "weight": 1} for each in value]
    parts = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in value]
    null = [
        {**each, "content": [{**part, "image_url": None} for part in each["content"]]}
        for each in parts
    ]  # as parquet has them
    assert question(more, "q") == question(parts, "q") == question(null, "q") == value
    two = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert question([{**USER, "content": two}], "q") == [{**USER, "content": "a\nb"}]
    assert around(value, "<", ">")[-1]["content"] == "<1 and 2?>"
    assert around(value, "<", ">")[:-1] == value[:-1] and value[-1] == USER


@pytest.mark.parametrize("value", ["text", "[1, 2]", "[role, content]", '[{"x": "role content"}]'])
def test_a_text_stays_a_text(value):
    assert question(value, "q") == value
    assert (question(5, "q"), question(0.5, "q")) == ("5", "0.5")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([SAID], "message 1 of its q has the role 'assistant'; a conversation has a system"),
        ([SYSTEM], "its q ends with a message of the system; the last one must be the user's"),
        ([USER, SAID], "its q ends with a message of the assistant"),
        ([USER, USER], "message 2 of its q has the role 'user'"),
        ([USER, SYSTEM], "message 2 of its q has the role 'system'"),
        ([SYSTEM, SYSTEM, USER], "message 2 of its q has the role 'system'"),
        ([SYSTEM, SAID, USER], "message 2 of its q has the role 'assistant'"),
        ([{**USER, "role": "tool"}], "the role 'tool'"),
        ([{**USER, "role": "User"}], "the role 'User'"),
        ([{**USER, "role": None}], "the role None"),
        ([{**USER, "content": None}], "has the content None, which is no text"),
        ([{**USER, "content": 5}], "has the content 5, which is no text"),
        ([{**USER, "content": "  "}], "message 1 of its q is empty"),
        ([{**USER, "content": []}], "message 1 of its q is empty"),
        ([{**USER, "content": ["hi"]}], "a part that is no text but 'hi'"),
        ([{**USER, "content": [{"type": "image", "url": "x"}]}], "no text but {'type': 'image'"),
        ([{**USER, "content": [{"type": "text"}]}], "has the content None"),
        ([{**USER, "content": [{"text": "hi"}]}], "no text but {'text': 'hi'}"),
        ([{"role": "user"}], "message 1 of its q has no role and content but is"),
        ([{"from": "human", "value": "hi"}], "neither text nor a list of messages"),
        ([USER, "hi"], "message 2 of its q has no role and content but is 'hi'"),
        (USER, "its q is an object"),
        ({"messages": [USER]}, "its q is an object"),
        (json.dumps([SYSTEM, USER]), "is a list of messages written as text; give the list"),
        (f" {[SYSTEM, USER]} ", "is a list of messages written as text"),
        (["a", "b"], "its q ['a', 'b'] is neither text nor a list of messages"),
        (True, "its q True is neither"),
        ([], "its q [] is neither"),
    ],
)
def test_what_is_no_conversation_is_one_line(value, said):
    assert said in message(DataError, question, value, "q")
