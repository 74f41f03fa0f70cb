"""The report of a run directory: numbers by hand, damage by name, files that read well."""

import dataclasses
import html.parser
import json
import math
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from reported_runs import ARRAYS, KEYS, arrays, experts_json, record, save, write

from thicket_jax.analysis import intervals
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.reports import report
from thicket_jax.reports.results import build_results, sweep
from thicket_jax.runs import record as run_record
from thicket_jax.scoring import metrics


def signals_record(N=300, K=20, B=64, T=6, seed=0, **fields):
    """Experts with roll-out errors of enormous spread, graded by mse; three sigmas."""
    rng = np.random.default_rng(seed)
    sigmas = np.tile([0.001, 0.002, 0.004], N // 3)
    scores = -np.exp(rng.normal(-0.5 + 400 * sigmas, 0.8))
    scores[7] = -3.4e30
    failed = np.arange(N) % 50 == 49
    targets = rng.normal(size=(B, T)).astype(np.float32)
    errors = 0.2 + 0.02 * np.arange(K)[:, None, None]
    noise = rng.normal(size=(K, B, T)) * errors
    values = {
        "experts": experts_json(scores, failed, sigmas, base=-0.5),
        "train": np.repeat(scores[:, None], 8, 1).astype(np.float32),
        "base_train": np.full(8, -0.5, np.float32),
        "targets": targets,
        "base_answers": targets + 0.7 * rng.normal(size=(B, T)).astype(np.float32),
        "answers": (targets + noise).astype(np.float32),
        "random_answers": np.repeat(targets[None] + np.float32(1), 4, 0),
    }
    return record("mse", ("mean", "median"), (1, 5, 20), **(values | fields))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    write(record(), folder)
    return folder


@pytest.fixture(scope="module")
def signals_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals") / "run"
    write(signals_record(), folder)
    return folder


def test_results_by_hand():
    results = build_results(record())
    assert set(results) == KEYS
    assert (results["task"], results["num"], results["k"], results["failed"]) == (
        "digits", 5, [1, 3], 1,
    )  # fmt: skip
    assert (results["metric"], results["higher_is_better"], results["seed"]) == (
        "accuracy",
        True,
        7,
    )
    assert results["sigma"] == [0.001, 0.002]
    assert results["noise"] == "gaussian"
    half = math.sqrt(1 / 3) / 2  # s.e. of two right and two wrong answers
    assert results["base"] == {"train": 0.5, "test": 0.5, "test_stderr": pytest.approx(half)}
    best = results["best"]
    assert (best["id"], best["sigma"], best["train"], best["test"]) == (2, 0.001, 1.0, 0.5)
    one, three = results["ensemble"]
    # Votes of 3: [0, 1, 2, 2]: all right, against the base's two: differences 0, 1, 0, 1.
    assert (three["k"], three["combine"], three["test"], three["stderr"]) == (
        3, "majority_vote", 1.0, 0.0,
    )  # fmt: skip
    assert three["delta_vs_base"] == 0.5
    t3 = 3.182446305284263
    assert three["delta_ci95"] == pytest.approx([0.5 - t3 * half, 0.5 + t3 * half])
    assert (one["test"], one["delta_vs_base"]) == (0.5, 0.0)
    assert set(three) == {"k", "combine", "test", "stderr", "delta_vs_base", "delta_ci95"}
    small, large = results["density"]
    assert (small["sigma"], small["n"], small["mean"]) == (0.001, 3, 0.75)
    assert (small["fraction_ge"], small["fraction_gt"]) == (2 / 3, 1 / 3)
    assert (large["fraction_ge"], large["fraction_gt"]) == (0.5, 0.0)
    assert results["timing"] == {
        "setup_s": None, "compile_s": None, "score_s": 2.0, "ensemble_s": None,
        "experts_per_s": 2.5,
    }  # fmt: skip
    assert results["provenance"]["key"] == [0, 7]
    assert results["provenance"]["fingerprints"] == {"params": "abc"}


def test_ties_of_a_vote_go_to_the_better_rank():
    tied = record(answers=np.array([[0, 0, 0, 0], [1, 1, 1, 1]]), k=(2,))
    (row,) = build_results(tied)["ensemble"]
    assert row["test"] == 0.25  # the best expert's answers, of which one is right


def test_mse_is_in_its_own_unit():
    run = signals_record()
    results = build_results(run)
    assert results["higher_is_better"] is False
    assert results["base"]["train"] == 0.5
    assert results["best"]["train"] == pytest.approx(-np.nanmax(run.scores))
    per_item = ((run.base_answers - run.targets) ** 2).mean(1)
    assert results["base"]["test"] == pytest.approx(per_item.mean())
    assert results["base"]["test_stderr"] == pytest.approx(per_item.std(ddof=1) / 8)
    for row in results["ensemble"]:
        rule = np.mean if row["combine"] == "mean" else np.median
        items = ((rule(run.answers[: row["k"]], 0) - run.targets) ** 2).mean(1)
        delta, interval = intervals.paired_difference(items, per_item)
        assert row["test"] == pytest.approx(items.mean(), rel=1e-5)
        assert row["delta_vs_base"] == pytest.approx(delta, rel=1e-5)
        assert row["delta_ci95"] == pytest.approx(interval, rel=1e-4)
        assert row["delta_vs_base"] < 0
    for row in results["density"]:
        here = (run.sigmas == np.float32(row["sigma"])) & ~run.failed
        assert row["mean"] == pytest.approx(-run.scores[here].mean())
        assert row["fraction_ge"] == (run.scores[here] >= -0.5).sum() / 100
    assert [(row["k"], row["combine"]) for row in results["ensemble"]] == [
        (k, rule) for rule in ("mean", "median") for k in (1, 5, 20)
    ]


def test_sweep_equals_results_and_a_written_run(signals_run):
    run, folder = signals_record(), signals_run
    results, read = build_results(run), run_record.load(folder)
    assert json.loads((folder / "results.json").read_text()) == results
    assert sweep(run) == results["ensemble"]
    assert build_results(read) == results
    (row,) = sweep(read, [5], "median")
    assert row == next(r for r in results["ensemble"] if (r["k"], r["combine"]) == (5, "median"))
    assert [r["k"] for r in sweep(read, [3, 2, 3], "mean")] == [3, 2]
    assert build_results(read, [2], "mean")["k"] == [2]
    own = sweep(read, [4], lambda answers: answers[0])
    assert own[0]["test"] == sweep(read, [1], "mean")[0]["test"]


def test_logits_can_be_voted_and_averaged():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 50)
    logits = rng.normal(size=(4, 50, 3)).astype(np.float32)
    run = record(
        combines=("majority_vote", "mean_probs"), k=(4,), targets=targets, answers=logits,
        base_answers=logits[0], random_answers=None,
    )  # fmt: skip
    vote, probs = build_results(run)["ensemble"]
    counts = [np.bincount(v, minlength=3) for v in logits.argmax(-1).T]
    first = [
        next(label for label in ballots if count[label] == count.max())
        for ballots, count in zip(logits.argmax(-1).T, counts, strict=True)
    ]
    assert vote["test"] == pytest.approx((np.array(first) == targets).mean())
    soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert probs["test"] == pytest.approx((soft.mean(0).argmax(-1) == targets).mean())


def test_results_are_valid_json(tmp_path):
    run = signals_record(B=1, timing={"score_s": math.nan})  # one item: no error, no interval
    run = dataclasses.replace(run, answers=run.answers * np.float32(np.inf))
    results, _ = write(run, tmp_path / "run")
    text = (tmp_path / "run/results.json").read_text()

    def refuse(token):
        raise AssertionError(f"{token} in results.json")

    assert json.loads(text, parse_constant=refuse) == results
    assert results["base"]["test_stderr"] is None
    assert results["ensemble"][0]["delta_ci95"] == [None, None]
    assert results["ensemble"][0]["test"] is None
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_all_of_a_sigma_failed(tmp_path):
    experts = experts_json([1.0, 2.0, 0.0], [True, True, False], [0.1, 0.1, 0.2], base=0.5)
    run = record(experts=experts, train=None, answers=np.zeros((1, 4), int), k=(1,))
    results, _ = write(run, tmp_path / "run")
    assert results["density"][0]["mean"] is None
    assert results["failed"] == 2
    assert "2 of 3 experts failed" in (tmp_path / "run/report.md").read_text()
    everyone = experts_json([1.0], [True], [0.1], base=0.5)
    with pytest.raises(RunError, match=r"all 1 experts failed.*smaller sigma"):
        build_results(record(experts=everyone))


@pytest.mark.parametrize("missing", [("answers",), ARRAYS])
def test_a_run_without_test_answers(tmp_path, missing):
    run = record(random_answers=None, **dict.fromkeys(set(missing) - {"random_answers"}))
    results, paths = write(run, tmp_path / "run")
    assert results["base"]["train"] == 0.5
    assert results["best"]["train"] == 1.0
    assert results["best"]["test"] is None
    assert results["ensemble"] == []
    assert [row["n"] for row in results["density"]] == [3, 2]
    assert results["k"] == [1, 3]
    assert "no test answers" in (tmp_path / "run/report.md").read_text()
    assert all(path.exists() for path in paths)
    with pytest.raises(ArgumentError, match="no graded test answers"):
        build_results(run, [1])


def test_a_base_that_is_not_graded_on_test():
    results = build_results(record(base_answers=None))
    assert results["base"]["test"] is None
    assert results["ensemble"][1]["test"] == 1.0
    assert results["ensemble"][1]["delta_vs_base"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ks": [4]}, "k=4 is larger than the 3 experts"),
        ({"ks": [0]}, "k=0 must be a whole number"),
        ({"ks": [True]}, "k=True must be"),
        ({"ks": [1.5]}, "k=1.5 must be"),
        ({"combine": "mean"}, "'mean' does not fit answers int64.*choose one of: majority_vote"),
        ({"combine": "vote"}, "'vote' is not a rule of this package; choose one of"),
    ],
)
def test_bad_questions_get_one_line(options, words):
    with pytest.raises(ArgumentError, match=words) as caught:
        build_results(record(), **options)
    assert "\n" not in str(caught.value)


def test_signals_are_not_voted_on():
    for rule in ("majority_vote", "mean_probs"):
        with pytest.raises(ArgumentError, match=r"graded by mse; choose one of: mean, median$"):
            sweep(signals_record(), [1], rule)


def test_a_programs_own_metric_and_rule(tmp_path):
    def closeness(answers, targets):
        return -np.abs(answers - targets).astype(float)

    own = metrics.Metric("closeness", True, closeness)
    run = record("closeness", ("first",))
    rules = {"first": lambda answers: answers[0]}
    results = build_results(run, metric=own, rules=rules)
    assert results["ensemble"][0]["test"] == closeness(run.answers[0], run.targets).mean()
    for metric in (own, None):
        report.write(run, save(run, tmp_path / "run"), results, metric=metric)
        assert "An ensemble of 3" in (tmp_path / "run/report.md").read_text()
    with pytest.raises(ArgumentError, match="metric 'closeness' is a function of the program"):
        build_results(run_record.load(tmp_path / "run"))
    # A bare score without test answers needs no grading, so a log alone is enough.
    bare = record("score", random_answers=None, answers=None)
    assert build_results(bare)["best"]["train"] == 1.0


def test_load_reads_what_a_search_wrote(tmp_path):
    run = record(exhibits={"context": np.arange(3)})
    write(run, tmp_path / "run")
    read = run_record.load(str(tmp_path / "run"))
    assert read.config == run.config
    assert read.experts == run.experts
    assert read.timing["experts_per_s"] == 2.5
    np.testing.assert_array_equal(read.exhibits["context"], np.arange(3))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(read, name), getattr(run, name))
    assert read.failed.tolist() == [False] * 4 + [True]
    assert read.ranks.tolist() == [1, 3, 0, 2, 4]
    assert math.isnan(read.scores[4])
    assert read.kept_tests().tolist() == [0.5, 1.0, 0.5]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


def edit(change):
    def damage(path):
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return damage


@pytest.mark.parametrize(
    ("name", "damage", "mend"),
    [
        ("config.json", truncate, "new run"),
        ("config.json", pathlib.Path.unlink, "not a run directory"),
        ("config.json", lambda p: p.write_text("[]"), "it has no task.*new run"),
        ("config.json", edit(lambda v: v.pop("metric")), "it has no metric.*new run"),
        ("config.json", lambda p: p.write_bytes(b"\xff\xfe\x00"), "new run"),
        ("experts.json", truncate, "thicket resume"),
        ("experts.json", pathlib.Path.unlink, "thicket resume"),
        ("experts.json", edit(lambda v: v["experts"][1].pop("sigma")), "sigma.*thicket resume"),
        ("experts.json", edit(lambda v: v["experts"][1].update(rank=0)), "ranks are not 0 to 4"),
        ("experts.json", edit(lambda v: v["experts"][1].update(score=None)), "has no score"),
        ("experts.json", edit(lambda v: v["experts"][1].update(sigma=-1)), "sigma"),
        ("experts.json", edit(lambda v: v.update(experts=[])), "no experts"),
        ("experts.json", edit(lambda v: v.update(experts=3)), "TypeError"),
        ("experts.json", edit(lambda v: v["experts"][3].pop("sign")), "an expert has no sign"),
        ("experts.json", edit(lambda v: v["base"].update(score=None)), "base has no score"),
        ("items.npz", truncate, "thicket resume"),
        ("items.npz", flip, "thicket resume"),
        ("items.npz", pathlib.Path.unlink, "thicket resume"),
        ("items.npz", lambda p: p.write_bytes(b""), "thicket resume"),
        ("items.npz", arrays(train=np.ones((4, 4))), r"train is \[4, 4\] where 5×4 is"),
        ("items.npz", arrays(answers=np.ones((3, 2))), r"answers is \[3, 2\] where \?×4 is"),
        ("items.npz", arrays(targets=np.ones(())), r"targets is \[\] where"),
        ("items.npz", arrays(answers=np.ones((9, 4))), "answers of 9 experts of 5"),
        ("items.npz", arrays(base_answers=np.ones(3)), r"base_answers is \[3\] where 4 is"),
        ("results.json", truncate, "thicket report"),
        ("results.json", lambda p: p.write_text("{}"), "it has no timing"),
    ],
)
def test_damage_is_named(whole_run, tmp_path, name, damage, mend):
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    run_record.load(folder)
    damage(folder / name)
    with pytest.raises(RunError, match=mend) as caught:
        run_record.load(folder)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unfinished_and_absent_runs(tmp_path):
    folder = save(record(), tmp_path / "run")
    assert run_record.load(folder).timing == {}  # killed before its report: the log is complete
    (folder / "items.npz").unlink()
    with pytest.raises(RunError, match=f"unfinished.*thicket resume {folder}"):
        run_record.load(folder)
    (folder / "experts.json").unlink()
    with pytest.raises(RunError, match=f"no experts.json; thicket resume {folder}"):
        run_record.load(folder)
    with pytest.raises(RunError, match="nowhere is not a run directory"):
        run_record.load(tmp_path / "nowhere")


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_one_whole_file(signals_run):
    text = (signals_run / "report.html").read_text()
    page = Page(text)
    pictures = list((signals_run / "figures").iterdir())
    assert page.tags.count("img") == len(pictures) == 4
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("href", "srcset", "onload")
        assert name != "src" or value.startswith("data:image/png;base64,")
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_text_from_data_is_escaped(tmp_path):
    bad = "<script>alert('x')</script> a|b & [c](d) *e* `f`"
    run = record()
    run.config.update(
        model=bad, notes=[bad], task=bad, task_provenance={bad: bad}, command=bad, versions={bad: 1}
    )
    run.config["options"][bad] = [bad]
    caption = f"caption {bad}"

    def draw(run, folder):
        Image.new("RGB", (4, 4)).save(folder / "own.png")
        return [("own.png", caption)]

    _, paths = write(run, tmp_path / "run", draw=draw)
    assert tmp_path / "run/figures/own.png" in paths
    page = Page((tmp_path / "run/report.html").read_text())
    assert "script" not in page.tags
    assert page.text.count(bad) >= 8
    assert caption in page.text
    text = (tmp_path / "run/report.md").read_text()
    prose = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not any(re.search(r"(?<!\\)<", line) for line in prose)
    tables = [line for line in prose if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert set(widths) <= {3, 6, 7, 8}, "a bar in a cell must not make a column"


def test_a_figure_that_was_not_written_is_named(tmp_path):
    with pytest.raises(RunError, match=r"ghost\.png was announced but not written"):
        write(record(), tmp_path / "run", draw=lambda run, folder: [("ghost.png", "boo")])


def test_figures(signals_run, tmp_path):
    folder = shutil.copytree(signals_run, tmp_path / "run")
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"comparison.png", "sweep.png", "scores.png", "transfer.png"}
    for path in (folder / "figures").iterdir():
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert image.width > 600
            assert np.asarray(image.convert("L")).std() > 5  # not blank
    text = (folder / "report.md").read_text()
    assert re.search(r"Not drawn: \d+ of 294 above [\d.,]+, up to 3\.40e30", text)
    for name in names:
        assert f"(figures/{name})" in text
    # A later report of one K leaves no figure of the sweep behind.
    run = run_record.load(folder)
    report.write(run, folder, build_results(run, [5], "mean"))
    assert not (folder / "figures/sweep.png").exists()


@pytest.mark.parametrize(
    "scores", [[0.5] * 4, [0.0, 0.0, 0.0, 1.0], [1e-30, 1e30, 5.0, 2.0], [-3.0, 4.0, 0.0, 1.0]]
)
def test_figures_of_strange_scores(tmp_path, scores):
    experts = experts_json([*scores, np.nan], [False] * 4 + [True], [0.1] * 5, base=0.5)
    for metric in ("accuracy", "score"):
        run = record(metric, experts=experts, answers=None)
        _, paths = write(run, tmp_path / metric)
        assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (np.tile([[0, 1, 2]], (3, 40)), "An ensemble of 3 beats the base"),
        (np.tile([[1, 0, 1]], (3, 40)), "An ensemble of 3 is worse than the base"),
        (np.tile([[0, 0, 2]], (3, 40)), "An ensemble of 3 cannot be told from the base"),
    ],
)
def test_the_headline_says_what_the_interval_says(tmp_path, answers, said):
    run = record(
        targets=np.tile([0, 1, 2], 40), base_answers=np.tile([0, 0, 2], 40), answers=answers,
        random_answers=None,
    )  # fmt: skip
    write(run, tmp_path / "run")
    assert said in (tmp_path / "run/report.md").read_text()
    assert said in (tmp_path / "run/report.html").read_text()


def test_the_report_is_written_out_in_full(tmp_path):
    write(record(), tmp_path / "run")
    text = (tmp_path / "run/report.md").read_text()
    assert "On 4 held-out items, the base's accuracy is 0.50." in text
    assert "The ensemble of the 3 best of 5 experts (σ 0.001, 0.002)" in text
    assert "has 1.000: a difference of +0.50" in text
    assert "1 of 5 experts failed" in text
    assert "    thicket run digits --num 5 --k 1,3" in text
    assert "root key \\[0, 7\\] (threefry2x32)" in text
    assert "A note." in text
    rows = [line for line in text.splitlines() if line.startswith("| 0.00")]
    assert rows[0] == "| 0.001 | 3 | 0.7500 | 0.7500 | 66.7 % | 20.8 to 93.9 % | 33.3 % |"
