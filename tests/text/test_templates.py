"""Chat templates: what a user passes to one, what it reads, and how it ends a turn."""

import json

import pytest
from language_models import TEMPLATE, make_checkpoint

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.prompts import open_tokenizer, render
from thicket_jax.text.templates import arguments, has_template, reads

pytest.importorskip("transformers")

# How three families write a conversation, and end a turn.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}{{ date_string }}"
)
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n"
    "{% endfor %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<end_of_turn_2>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of bytes with special tokens of several families."""
    from tokenizers import AddedToken, Tokenizer

    place = make_checkpoint(tmp_path_factory.mktemp("model"), chat=True, says="0")
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    tokenizer.save(str(place / "tokenizer.json"))
    return place


@pytest.fixture
def opened(folder):
    """Returns a tokenizer with another template."""

    def open_(template):
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["chat_template"] = template
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return open_tokenizer(folder)

    return open_


def test_values_are_json_or_else_text():
    words = ["a=false", "b=2", 'c="x"', "d=26 Jul 2024", "e=", "f=[1]", "g=a=b", "h=NaN", "i=null"]
    wanted = [False, 2, "x", "26 Jul 2024", "", [1], "a=b", "NaN", None]
    assert list(arguments(words).values()) == wanted
    assert list(arguments(words)) == list("abcdefghi") and arguments([]) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["thinking"], "--template 'thinking' must be KEY=VALUE, such as enable_thinking=false"),
        (["=false"], "must be KEY=VALUE"),
        (["2x=false"], "must be KEY=VALUE"),
        (["a=1", "a=2"], "--template gives a twice; give it once"),
        (["a=False"], "--template a=False: values are JSON, so say false"),
        (["a=None"], "so say null"),
    ],
)
def test_what_is_no_argument_is_one_line(words, said):
    with pytest.raises(ArgumentError) as caught:
        arguments(words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_template_reads_is_found_in_its_blocks_too():
    assert reads(CHATML) == {"enable_thinking"}
    assert reads(LLAMA) == {"bos_token", "date_string"}
    macro = (
        "{% macro say(x) %}{{ x }}{{ mood }}{% endmacro %}{% set y = namespace(n=0) %}"
        "{% for m in messages %}{% if loop.first and day %}{% break %}{% endif %}"
        "{% generation %}{{ say(m.content) }}{% endgeneration %}{% endfor %}{{ range(y.n) }}"
        "{{ strftime_now('%d') }}{{ tools }}"
    )
    assert reads(macro) == {"mood", "day"}
    assert reads(TEMPLATE) == reads("{% if") == set()


def test_an_argument_changes_the_prompt_or_is_refused(opened, folder):
    chatty = opened(CHATML)
    chatty.check_arguments({"enable_thinking": False})
    plain, quick = (render(chatty, "1?", arguments=x) for x in (None, {"enable_thinking": False}))
    assert chatty.written(plain) == "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n"
    assert chatty.written(quick) == chatty.written(plain) + "<think></think>"
    for name in ("thinking", "messages", "add_generation_prompt", "bos_token"):
        with pytest.raises(ArgumentError, match=f"--template {name}: .* reads enable_thinking"):
            chatty.check_arguments({name: 1})
    with pytest.raises(ArgumentError, match="reads no such argument; it reads none"):
        opened(GEMMA).check_arguments({"enable_thinking": 1})
    with pytest.raises(ArgumentError, match="has no chat template; leave it out"):
        opened("").check_arguments({"enable_thinking": 1})
    named = [{"name": "tool_use", "template": "x"}]
    with pytest.raises(DataError, match=f"the chat template in {folder} fails"):
        opened(named).check_arguments({"enable_thinking": 1})


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (CHATML, ["<|im_end|>"]),
        (LLAMA, ["<|eot_id|>"]),
        (GEMMA, ["<end_of_turn>"]),
        (GEMMA.replace("<end_of_turn>", " <end_of_turn_2>"), ["<end_of_turn_2>"]),
        (TEMPLATE.replace("}} ", "}}</s>"), ["</s>"]),
        (TEMPLATE, []),  # a space
        (TEMPLATE.replace("}} ", "}}[END]"), []),  # no token of its own
        ("{{ messages[0].content }}<|im_end|>", []),  # no answer in it
        ("{% if messages|length > 1 %}{{ raise_exception('one') }}{% endif %}", []),
        ("", []),
    ],
)
def test_the_end_of_a_turn_is_what_the_template_puts_behind_an_answer(template, ends, opened):
    tokenizer = opened(template)
    assert [tokenizer.written([end]) for end in tokenizer.end_of_turn()] == ends


SHOTS = [("1 + 1?", " 2\n"), ("2 + 2?", "4")]


def test_worked_examples_are_turns_of_a_chat_or_blocks_of_text(opened):
    chatty = opened(CHATML)
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    shown = "".join(turn("user", asked) + turn("assistant", x.strip()) for asked, x in SHOTS)
    told = [turn("system", "Add."), shown, turn("user", "3?"), "<|im_start|>assistant\n"]
    assert chatty.written(render(chatty, "3?", "Add.", shots=SHOTS)) == "".join(told)
    mine = [{"role": "system", "content": "Sum."}, {"role": "user", "content": "3?"}]
    own = chatty.written(render(chatty, mine, shots=[(mine, "3"), SHOTS[1]]))
    assert own.startswith(turn("system", "Sum.") + turn("user", "3?") + turn("assistant", "3"))
    assert own.count("Sum.") == 1 and own.endswith("".join(told[2:]))

    def plain(*arguments, **options):
        return chatty.decode(render(chatty, *arguments, chat=False, shots=SHOTS, **options))

    assert plain("3?", "Add.") == (
        "Add.\n\nQuestion: 1 + 1?\n\nAnswer: 2\n\nQuestion: 2 + 2?\n\nAnswer: 4\n\n"
        "Question: 3?\n\nAnswer:"
    )
    assert plain("3?", labels=("", "")) == "1 + 1? 2\n\n2 + 2? 4\n\n3?"
    asked = [(f"Q: {q}\nA: ", a) for q, a in SHOTS]
    assert chatty.decode(
        render(chatty, "Q: 3?\nA: ", chat=False, shots=asked, labels=("", ""))
    ) == ("Q: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA: 4\n\nQ: 3?\nA: ")


def test_an_error_of_a_template_names_the_options_that_may_be_why(opened):
    gemma = opened(GEMMA)
    assert render(gemma, "3?", shots=SHOTS)
    with pytest.raises(DataError, match="System role not supported; leave --system out, or say"):
        render(gemma, "3?", "Add.")
    with pytest.raises(DataError, match="leave --system and --few-shot out, or say --no-chat for"):
        render(gemma, "3?", "Add.", shots=SHOTS)


def test_whether_a_folder_has_a_template_is_seen_by_its_files(opened, tmp_path):
    folder = opened(CHATML).folder
    assert has_template(folder) and not has_template(tmp_path)
    opened("")
    assert not has_template(folder)
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert has_template(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text("[")
    assert not has_template(tmp_path)
