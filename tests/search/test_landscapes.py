"""`thicket landscape`: files, what goes on, what is refused; the picture in a real browser."""

import json
import re
import shutil

import numpy as np
import pytest

from thicket_jax.cli.main import main
from thicket_jax.errors import RunError
from thicket_jax.reports import documents, landscape_figure, landscape_page
from thicket_jax.search import landscapes

pytestmark = pytest.mark.usefixtures("undrawn")
TINY = ["--pretrain", "xavier", "--num", "8", "--train-items", "8", "--test-items", "8"]
TINY += ["--k", "1,4", "--sigma", "0.05", "--block-size", "1", "--quiet"]
LAW = ["--scale", "modular", "--masses", "kernel=0.5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one base and one population on two tasks, and one of another base."""
    folder = tmp_path_factory.mktemp("landscapes")
    cache = ["--cache", str(folder / "cache")]
    for name, words in (
        ("line", ["--target", "line"]),
        ("wave", ["--target", "sinusoid"]),
        ("other", ["--target", "line", "--seed", "1", *LAW]),
    ):
        assert main(["run", "signals", *TINY, *words, *cache, "--out", str(folder / name)]) == 0
    return folder


def landscape(*words):
    return main(["landscape", *map(str, words), "--block-size", "1", "--points", "4"])


def test_experts_points_reproduce_their_logs_and_an_interrupt_loses_nothing(
    runs, capsys, monkeypatch
):
    words = (runs / "line", runs / "wave", "--plane", "experts", "--ranks", "1,3")
    kept = landscapes.score_grid
    calls = []

    def interrupted(scorer, *rest):
        def stop(done, total):
            calls.append(done)
            if done >= total // 2:
                raise KeyboardInterrupt

        return kept(scorer, *rest[:-1], stop)

    monkeypatch.setattr(landscapes, "score_grid", interrupted)
    assert landscape(*words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (runs / "line" / "landscapes" / "experts-1-3" / "landscape.json").exists()
    seen = []
    monkeypatch.setattr(
        landscapes, "score_grid", lambda *a: kept(*a[:-1], lambda done, _: seen.append(done))
    )
    assert landscape(*words) == 0
    assert seen[0] > calls[-1] - 1  # what was scored is not scored again
    out = capsys.readouterr().out
    assert re.search(r"rank 3: score -\S+ here, -\S+ in the log", out)

    found = json.loads((runs / "line/landscapes/experts-1-3/landscape.json").read_text())
    experts = json.loads((runs / "line/experts.json").read_text())["experts"]
    checks = found["tasks"][0]["checks"]
    ranked = {row["rank"]: row for row in experts}
    assert [c["name"] for c in checks] == ["rank 1", "rank 3"]
    for check, rank in zip(checks, (0, 2), strict=True):
        assert check["score"] == pytest.approx(ranked[rank]["score"], rel=1e-5)
    # The other run scored the same experts on its own task: they are found there too.
    other = {row["id"]: row["score"] for row in json.loads(
        (runs / "wave/experts.json").read_text())["experts"]}  # fmt: skip
    for check, rank in zip(found["tasks"][1]["checks"], (0, 2), strict=True):
        assert check["logged"] == other[ranked[rank]["id"]]
    for task in found["tasks"]:
        values, gains = np.array(task["values"]), np.array(task["gains"])
        assert values.shape == (4, 4) and task["metric"] == "mse"
        np.testing.assert_allclose(gains, task["base"] - values, rtol=1e-5, atol=1e-7)
        assert task["marks"]["θ"]["gain"] == 0
    html = (runs / "line" / "report.html").read_text()
    assert "Landscape: experts-1-3" in html and 'src="http' not in html
    assert "landscape-experts-1-3.png" in (runs / "line" / "report.md").read_text()

    # A finished one scores nothing again, and a report made later still has it.
    seen.clear()
    assert landscape(*words) == 0 and set(seen) == {19}
    assert main(["report", str(runs / "line")]) == 0
    assert "Landscape: experts-1-3" in (runs / "line" / "report.html").read_text()
    # Another grid under the same name is not mixed with it.
    assert landscape(*words, "--reach", "2") == 2
    assert "give this one another --name" in capsys.readouterr().err


def test_experts_of_a_law_with_masses_are_found_in_the_log(runs, capsys):
    for _ in range(2):  # the second time nothing is scored, and nothing has changed
        assert landscape(runs / "other", "--plane", "experts", "--quiet") == 0
    assert "rank 2: score" in capsys.readouterr().out
    found = json.loads((runs / "other/landscapes/experts-1-2/landscape.json").read_text())
    assert found["plane"]["basis"]["noise"]["masses"] == [["kernel", 0.5]]
    assert [check["name"] for check in found["tasks"][0]["checks"]] == ["rank 1", "rank 2"]


def test_a_principal_plane(runs, capsys):
    assert landscape(runs / "line", "--plane", "principal", "--top", "3", "--quiet") == 0
    assert "of the steps lie in it" in capsys.readouterr().out
    found = json.loads((runs / "line/landscapes/principal-3/landscape.json").read_text())
    assert 2 / 3 < found["plane"]["share"] < 0.8
    assert set(found["marks"]) == {"θ", "mean of 3", *(f"rank {k} (projected)" for k in (1, 2, 3))}


@pytest.mark.usefixtures("drawn")
def test_a_random_plane_of_its_own_name_is_drawn(runs):
    assert landscape(runs / "line", "--name", "mine", "--seed", "2", "--quiet") == 0
    found = json.loads((runs / "line/landscapes/mine/landscape.json").read_text())
    assert found["plane"]["basis"]["ids"] == [12, 13] and found["x"][0] == -3
    assert (runs / "line/figures/landscape-mine.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one to 3 run directories first, got 0"),
        (("line", "wave", "other", "x"), "got 4"),
        (("line", "line"), "is there twice"),
        (("nowhere",), "nowhere is not a run directory"),
        (("line", "other"), "has other base parameters than"),
        (("line", "--points", "1"), "--points 1 must be 2 to 1000"),
        (("line", "--reach", "-1"), "--reach -1.0 must be above 0"),
        (
            ("line", "--plane", "experts", "--ranks", "1,9"),
            "--ranks 9 is too much: .* has 8 experts",
        ),
        (("line", "--plane", "experts", "--ranks", "2,2"), "two different experts"),
        (("line", "--plane", "experts", "--ranks", "0,2"), "--ranks 0 must be at least 1"),
        (("line", "--plane", "principal", "--top", "1"), "--top 1 must be at least 2"),
        (("line", "--plane", "flat"), "invalid choice 'flat'"),
        (("line", "--name", "../x"), "must be of letters"),
        (("line", "--block-size", "many"), "--block-size many must be"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(runs, capsys, words, said):
    places = {"line", "wave", "other", "nowhere"}
    before = sorted(runs.rglob("*"))
    assert main(["landscape", *(str(runs / w) if w in places else w for w in words)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and re.search(said, error)
    assert sorted(runs.rglob("*")) == before


def test_a_score_that_is_not_the_logged_one_is_an_error():
    rows = landscapes.compare({"rank 1": 0.5}, {"rank 1": 0.5004})
    assert rows[0]["tolerance"] == pytest.approx(0.0005004)
    with pytest.raises(RunError, match="rank 1 scores 0.5 in the plane and 0.51 in the log"):
        landscapes.compare({"rank 1": 0.5}, {"rank 1": 0.51})
    assert landscapes.compare({"rank 1": 0.5}, {"rank 1": 0.51}, step=0.0101)


def test_colours_by_hand():
    gains = np.array([[0.0, 2.0], [-4.0, np.nan]])
    assert landscape_figure.limit(gains) == 2.0
    one = landscape_figure.one_task(gains, 2.0)
    np.testing.assert_allclose(one[0, 0], 1)
    np.testing.assert_allclose(one[0, 1], landscape_figure._rgb(landscape_figure.ABOVE))
    np.testing.assert_allclose(one[1, 0], landscape_figure._rgb(landscape_figure.BELOW))
    np.testing.assert_allclose(one[1, 1], landscape_figure._rgb(landscape_figure.FAILED))
    both = landscape_figure.all_tasks([np.array([1.0, 1, 0]), np.array([1.0, 0, -5])], [1.0, 1.0])
    blue, orange = (landscape_figure._rgb(ink) for ink in landscape_figure.INKS[:2])
    np.testing.assert_allclose(both, [blue * orange, blue, np.ones(3)])


NAME = '<b>"odd" & long</b></script>'


def page(folder):
    """A report page with one landscape of two tasks, one point failed; and its landscape."""
    x = [-1.0, 0.0, 1.0]
    values = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, None]]
    gains = [[-0.4, -0.3, -0.2], [-0.1, 0.0, 0.1], [0.2, 0.3, None]]
    tasks = [
        {"name": name, "metric": "accuracy", "higher_is_better": True, "base": 0.5,
         "values": values, "gains": [[g if g is None else k * g for g in row] for row in gains],
         "marks": {"θ": {"value": 0.5, "gain": 0.0}}, "checks": []}
        for name, k in ((NAME, 1.0), ("second", -1.0))
    ]  # fmt: skip
    found = {
        "name": "test", "x": x, "y": x, "marks": {"θ": [0.0, 0.0]}, "tasks": tasks,
        "distance": [[float(np.hypot(a, b)) for a in x] for b in x],
        "plane": {"kind": "random", "axes": [[1, 0], [0, 1]], "labels": ["one", "two"], "share": 1},
    }  # fmt: skip
    landscape_figure.draw(found, folder / landscape_page.picture_name(found))
    blocks = [documents.Title("A page", "over"), *landscape_page.sections([found])]
    (folder / "page.html").write_text(documents.to_html(blocks, folder))
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "window-size=800,1400", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


def test_the_picture_answers_the_pointer_and_the_keys(browser, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    found = page(tmp_path)
    browser.get((tmp_path / "page.html").as_uri())
    canvas = browser.find_element("tag name", "canvas")
    readout = browser.find_element("class name", "landscape-readout")
    side = canvas.size["width"] - 62 - 14  # the margins of the plot

    def hover(column, row):
        # From the canvas' centre, as the driver counts, to the middle of the cell.
        x = 62 + (column + 0.5) * side / 3 - canvas.size["width"] / 2
        y = 14 + side - (row + 0.5) * side / 3 - canvas.size["height"] / 2
        ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).perform()
        return readout.text

    for column, row in ((0, 0), (2, 1), (1, 2)):
        task = found["tasks"][0]
        value, gain = task["values"][row][column], task["gains"][row][column]
        sign = "−" if gain < 0 else "+"
        said = hover(column, row)
        assert said.startswith(f"x {found['x'][column]:g}, y {found['y'][row]:g}, distance ")
        assert f"{NAME}: accuracy {value:g} (gain {sign}{abs(gain):g})" in said
        assert f"second: accuracy {value:g} (gain " in said
    assert hover(1, 1).startswith("θ: x 0, y 0; ")
    assert hover(2, 2).endswith("second: failed")

    canvas.send_keys(Keys.ARROW_LEFT)
    assert readout.text.startswith("x 0, y 1, ")
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert readout.text.startswith("x 0, y -1, ")

    def pixel(column, row):
        x, y = 62 + (column + 0.25) * side / 3, 14 + side - (row + 0.25) * side / 3
        script = (
            "const [canvas, x, y] = arguments, r = devicePixelRatio;"
            "return Array.from(canvas.getContext('2d').getImageData(x * r, y * r, 1, 1).data)"
        )
        return np.array(browser.execute_script(script, canvas, x, y)[:3]) / 255

    gains = [landscape_figure.gains_of(task) for task in found["tasks"]]
    tops = [landscape_figure.limit(g) for g in gains]
    mixed = landscape_figure.all_tasks(gains, tops)
    for place in ((0, 0), (2, 1), (2, 2)):
        np.testing.assert_allclose(pixel(*place), mixed[place[1], place[0]], atol=0.01)
    Select(browser.find_element("tag name", "select")).select_by_visible_text("second")
    alone = landscape_figure.one_task(gains[1], tops[1])
    for place in ((0, 0), (2, 1), (2, 2)):
        np.testing.assert_allclose(pixel(*place), alone[place[1], place[0]], atol=0.01)

    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
    blocked = browser.execute_async_script(
        "const done = arguments[0]; fetch(location.href).then(() => done(false), () => done(true))"
    )
    assert blocked  # the page's own policy allows no request at all
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.find_elements("css selector", ".landscape b") == []
