"""experiments/density_scaling: its puzzles, its one-pass score, its rules, and its quick form."""

import json

import jax
import numpy as np
import pytest

from thicket_jax.errors import ArgumentError, DataError


def right(line):
    """What the answer of a line is, worked out again from its text alone."""
    letter, (question, _, _) = line[0], line[1:].partition("=")
    if letter in "CRS":
        return {"C": question, "R": question[::-1], "S": "".join(sorted(question))}[letter]
    if letter == "A":
        return str(eval(question))
    if letter == "M":
        return str(eval(question) % 7)
    if letter == "K":
        return str(question[2:].count(question[0]))
    if letter == "L":
        a, b = map(int, question.split(","))
        return "<" if a < b else ">" if a > b else "-"
    if letter == "X":
        return max(question.split(","))
    while (shorter := question.replace("()", "").replace("[]", "")) != question:
        question = shorter
    return "n" if question else "y"


def test_puzzles_are_right_different_and_never_on_both_sides(experiment):
    puzzles = experiment("experiments.density_scaling.puzzles")
    for task in puzzles.TASKS:
        test = puzzles.lines(task, 60, 0, "test")
        assert len(set(test)) == 60 and test[:20] == puzzles.lines(task, 20, 0, "test")
        assert all(line == f"{line.partition('=')[0]}={right(line)}." for line in test)
        assert max(map(len, test)) <= puzzles.WIDTH
        assert not set(test) & set(puzzles.lines(task, 60, 1, "train"))
    mixture = puzzles.mixture(900, 0)
    assert not any(puzzles.part_of(line) == "test" for line in mixture)
    assert [line[0] for line in mixture[:9]] == [x for x, _ in puzzles.TASKS.values()]
    answers = [line[-2] for line in puzzles.lines("brackets", 200, 0, "train")]
    assert 70 < answers.count("y") < 130
    with pytest.raises(ArgumentError, match="task='sums' must be one of copy"):
        puzzles.lines("sums", 1, 0, "test")
    with pytest.raises(DataError, match="different lines of add in test, not 5000"):
        puzzles.lines("add", 5000, 0, "test")


def test_one_pass_tells_what_greedy_decoding_writes(experiment):
    decoder = experiment("experiments.density_scaling.decoder")
    dataset = experiment("experiments.density_scaling.dataset")
    width = 16
    params = decoder.initialise(width, 3)
    logits = jax.jit(lambda p, t: decoder._all_logits(width, p, t))
    lines = dataset.encode(["Cabcd=abcd.", "A10+20=30.", "B([])()=y.", "X15,70,31,22=70."])
    tokens = lines["tokens"]
    written = tokens.copy()
    for row, asked in enumerate(lines["answer"]):
        for place in np.flatnonzero(asked):  # one token after another, each after what is written
            written[row, place] = np.asarray(logits(params, written))[row, place - 1].argmax()
    score = jax.jit(decoder.answers(width))
    wrong = np.asarray(score(params, lines))
    assert (wrong[:, 0] == (written == tokens).all(1)).all() and not wrong[:, 0].any()
    # The lines that it writes itself are right, and one changed token makes one wrong.
    own = {"tokens": written, "answer": lines["answer"]}
    assert np.asarray(score(params, own))[:, 0].tolist() == [1, 1, 1, 1]
    other = written.copy()
    other[1, np.flatnonzero(lines["answer"][1])[-1]] ^= 1
    found = np.asarray(score(params, {**own, "tokens": other}))
    assert found[:, 0].tolist() == [1, 0, 1, 1]
    every = np.asarray(logits(params, tokens))
    likely = jax.nn.log_softmax(every, -1)
    picked = np.take_along_axis(np.asarray(likely), tokens[:, 1:, None], -1)[..., 0]
    losses = np.where(lines["answer"][:, 1:], -picked, 0)
    np.testing.assert_allclose(wrong[:, 1], -losses.sum(1) / lines["answer"].sum(1), rtol=1e-5)
    asked = jax.jit(decoder.answer_logits(width))(params, decoder.with_places(lines))
    assert asked.shape == (lines["answer"].sum(), dataset.VOCABULARY)
    np.testing.assert_allclose(
        np.asarray(asked), every[lines["answer"][:, 1:]], rtol=1e-5, atol=1e-5
    )
    assert decoder.count(width) == sum(x.size for x in jax.tree.leaves(params))
    with pytest.raises(ArgumentError, match="width 24 must be even"):
        decoder.check(24)


def test_the_rules(experiment):
    pretrain = experiment("experiments.density_scaling.pretrain")
    verdict = experiment("experiments.density_scaling.verdict")
    measure = experiment("experiments.density_scaling.measure")
    rule = pretrain.Rule(least=400, most=800, round=100)
    falling = [1.0, 0.5, 0.4, 0.25]
    assert pretrain.flatness(falling) == 0.5 and pretrain.stage(falling, rule) == "go on"
    assert pretrain.flatness([1.0, 0.6, 0.5]) == pytest.approx(0.5 / 0.8)
    assert pretrain.stage([1.0, 0.5, 0.4, 0.4], rule) == "flat"
    assert pretrain.stage([1.0, 0.9], rule) == "go on"
    assert pretrain.stage([2.0**-n for n in range(8)], rule) == "cap"

    sizes, seeds = np.tile([1, 2, 3], 2), np.repeat([0, 1], 3)
    tau, p = verdict.trend(sizes, np.array([1, 2, 3, 1, 2, 3]), seeds)
    # All of 6 × 6 orders: the same order or the opposite one in both seeds, 2 of 36.
    assert tau == pytest.approx(1) and p == pytest.approx(2 / 36, abs=0.01)
    tau, p = verdict.trend(sizes, np.array([1, 1, 1, 1, 1, 1]), seeds)
    assert (tau, p) == (0, 1) and verdict.word(tau, p) == "no trend"
    assert verdict.word(-0.5, 0.01) == "shrinks" and verdict.word(0.5, 0.01) == "grows"
    assert verdict._verdict(["grows", "grows", "no trend", "no room"]) == "holds"
    assert verdict._verdict(["grows", "grows", "shrinks"]) == "mixed"
    assert verdict._verdict(["shrinks", "no trend", "shrinks"]) == "reversed"

    base = np.array([[1, 0, 1, 0], [1, 1, 1, 1.0]])
    items = np.stack([base, base, base, base])
    items[0, 0, 1], items[1, 0, 0], items[2, 1] = 1, 0, 0
    found = measure.summarise(base, items, np.zeros(4, bool), 0.1, ("a", "b"))
    first, second = found["tasks"]["a"], found["tasks"]["b"]
    assert (first["base"], first["mean"], second["mean"]) == (0.5, 0.5, 0.75)
    assert first["density"]["margins"] == list(measure.MARGINS)
    assert first["density"]["ge"] == [0.75, 0.25, 0.25, 0.25]
    assert first["density"]["gt"][0] == 0.25 and second["density"]["gt"] == [0, 0, 0, 0]
    assert second["density"]["ge"] == [0.75, 0, 0, 0]
    # Percentile ranks 4 1 2.5 2.5 and 3 3 1 3 of the experts: Pearson 0.
    assert found["discordance"]["value"] == pytest.approx(1)


@pytest.mark.usefixtures("fast_compiling")
def test_the_quick_form_goes_on_and_refuses_other_settings(experiment, tmp_path, capsys):
    words = ("--quick", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    main = experiment("experiments.density_scaling.__main__").main
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "trained 11,632 parameters" in out and "untrained" in out
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [(r["kind"], r["width"]) for r in table["records"]] == [
        ("trained", 16),
        ("untrained", 16),
    ]
    trained = table["records"][0]
    assert trained["curve"]["losses"][-1] < trained["curve"]["losses"][0]
    assert len(trained["likelihood"]["tasks"]) == 9 and trained["failed"] == 0
    assert 0 < np.mean([t["density"]["gt"][0] for t in trained["likelihood"]["tasks"].values()]) < 1
    for name in ("density", "likelihood", "discordance"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
    assert "**The models**" in (tmp_path / "out" / "table.md").read_text()

    assert main(words) == 0 and "trained 11,632" not in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == table
    assert main(["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 2
    error = capsys.readouterr().err
    assert "models of other settings: counts.items was 8, is now 40; " in error
    assert len(error.splitlines()) == 1
    assert main([*words, "--model", str(tmp_path)]) == 2
    assert "config.json is not there" in capsys.readouterr().err
    assert main([*words, "--widths", "24"]) == 2 and "width 24" in capsys.readouterr().err
