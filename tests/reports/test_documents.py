"""Pages: one whole file, and text from data as text."""

import html.parser
import re

from PIL import Image
from reported_runs import record, write


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
