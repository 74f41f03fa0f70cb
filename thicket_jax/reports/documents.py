"""A report's blocks as one HTML file, with its figures inside, and as Markdown.

The HTML refers to nothing outside itself: no font, no network, and no script but those of its
interactive pictures, which are inside it. Every piece of text is escaped, as some comes from data.
"""

import base64
import dataclasses
import html
import pathlib
import re
from collections.abc import Sequence

from thicket_jax.errors import RunError
from thicket_jax.runs.strings import printable

STYLE = """
:root { --ink: #1b1f24; --soft: #59636e; --line: #d9dee3; --page: #ffffff; --tint: #f5f7f9;
  --accent: #0072b2; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; --line: #333b44;
  --page: #14181c; --tint: #1d2329; --accent: #6cb6ea; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
.over { margin: 0; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
h1 { margin: .15rem 0 .9rem; font-size: 1.9rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 2.6rem 0 .7rem; font-size: 1.2rem; }
p { margin: .7rem 0; } .lead { font-size: 1.08rem; }
li { margin: .35rem 0; } p, li { overflow-wrap: break-word; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .75rem; margin: 1.4rem 0; }
.tile { background: var(--tint); border-radius: .5rem; padding: .75rem .9rem; }
.tile .label, .tile .remark { color: var(--soft); font-size: .82rem; }
.tile .value { font-size: 1.5rem; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
table.narrow { width: auto; min-width: min(24rem, 100%); }
th, td { padding: .38rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: top; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
.w { text-align: left; white-space: normal; min-width: 8rem; }
td.w + td.w { color: var(--soft); overflow-wrap: anywhere; width: 70%; }
figure { margin: 1.6rem 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff;
  border-radius: .4rem; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .55rem; }
pre { background: var(--tint); border-radius: .5rem; padding: .8rem 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font: .88rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--accent); margin: 1.2rem 0 .4rem; }
canvas { display: block; margin: 0 auto; max-width: 100%; border-radius: .3rem; cursor: crosshair; }
canvas:focus-visible { outline: 2px solid var(--accent); }
.landscape-view, .landscape-readout { text-align: center; }
.landscape-readout { min-height: 3.1em; font-variant-numeric: tabular-nums; }
.landscape-key { display: flex; flex-wrap: wrap; justify-content: center; gap: .2rem .5rem;
  color: var(--soft); font-size: .85rem; align-items: center; }
.landscape-swatch { display: inline-block; width: .9rem; height: .9rem; margin: 0 .35rem 0 .6rem;
  border: 1px solid var(--line); vertical-align: -.12rem; }
@media (prefers-color-scheme: dark) { img { padding: .5rem; } }
@media print { main { max-width: none; padding: 0; } figure, table { break-inside: avoid; } }
"""


@dataclasses.dataclass(frozen=True)
class Title:
    """The report's name: `text`, with a smaller line over it."""

    text: str
    over: str


@dataclasses.dataclass(frozen=True)
class Heading:
    """The heading of a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph; `lead` is the headline's."""

    text: str
    lead: bool = False


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The few numbers to see first: (label, value, remark)."""

    items: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text cells; the first `words` columns are words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    folded: str = ""  # a summary under which HTML folds the table away


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure in the figures folder."""

    name: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Interactive:
    """A picture that answers the pointer: `html` as it is, with its data and script inside.

    `picture` is its still form, for Markdown and for readers without scripts.
    """

    html: str
    picture: Picture


@dataclasses.dataclass(frozen=True)
class Code:
    """Lines to type."""

    text: str


# What a browser may load: what is in the page, and nothing else.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

Block = Title | Heading | Paragraph | Bullets | Tiles | Table | Picture | Interactive | Code


def to_html(blocks: Sequence[Block], pictures: pathlib.Path) -> str:
    """Returns the report as one HTML file; `pictures` is the folder of its PNG figures.

    Raises:
      RunError: a figure is not in that folder.
    """
    title = next((block for block in blocks if isinstance(block, Title)), Title("Report", ""))
    body = "\n".join(_html(block, pictures) for block in blocks)
    return printable(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{html.escape(f'{title.text} · {title.over}')}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def to_markdown(blocks: Sequence[Block]) -> str:
    """Returns the report as Markdown, with its figures as files under figures/."""
    return printable("\n\n".join(text for block in blocks if (text := _markdown(block))) + "\n")


def _html(block: Block, pictures: pathlib.Path) -> str:
    esc = html.escape
    match block:
        case Title(text, over):
            return f'<p class="over">{esc(over)}</p>\n<h1>{esc(text)}</h1>'
        case Heading(text):
            return f"<h2>{esc(text)}</h2>"
        case Paragraph(text, lead):
            return f'<p class="lead">{esc(text)}</p>' if lead else f"<p>{esc(text)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{esc(item)}</li>" for item in items) + "\n</ul>"
        case Tiles(items):
            return '<div class="tiles">\n' + "\n".join(map(_tile, items)) + "\n</div>"
        case Table():
            return _table(block)
        case Picture(name, caption):
            data = _picture(pictures / name)
            return (
                f'<figure><img alt="{esc(caption)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{esc(caption)}</figcaption></figure>"
            )
        case Interactive(inside, Picture(name, caption)):
            data = _picture(pictures / name)
            return (
                f'<figure>{inside}<noscript><img alt="{esc(caption)}" '
                f'src="data:image/png;base64,{data}"></noscript>'
                f"<figcaption>{esc(caption)}</figcaption></figure>"
            )
        case Code(text):
            return f"<pre><code>{esc(text)}</code></pre>"


def _tile(item: tuple[str, str, str]) -> str:
    kinds = zip(("label", "value", "remark"), item, strict=True)
    inside = "".join(f'<div class="{kind}">{html.escape(text)}</div>' for kind, text in kinds)
    return f'<div class="tile">{inside}</div>'


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="w"' if i < table.words else "" for i in range(len(cells))]
        pairs = zip(cells, kinds, strict=True)
        inside = "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for cell, kind in pairs)
        return f"<tr>{inside}</tr>"

    head = f"<thead>{row(table.head, 'th')}</thead>\n" if any(table.head) else ""
    body = "\n".join(row(cells, "td") for cells in table.rows)
    narrow = ' class="narrow"' if len(table.head) == 2 and table.words < 2 else ""
    text = f'<div class="scroll"><table{narrow}>\n{head}<tbody>\n{body}\n</tbody>\n</table></div>'
    if table.folded:
        return f"<details><summary>{html.escape(table.folded)}</summary>\n{text}\n</details>"
    return text


def _picture(path: pathlib.Path) -> str:
    if not path.is_file():
        raise RunError(f"figure {path} was announced but not written; check the task's draw")
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _markdown(block: Block) -> str:
    match block:
        case Title(text, over):
            return f"# {_plain(text)}\n\n{_plain(over)}"
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Bullets(items):
            return "\n".join(f"* {_plain(item)}" for item in items)
        case Tiles():
            return ""  # the headline and the table say the same numbers
        case Table(head, rows, words, folded):
            rule = [":---" if i < words else "---:" for i in range(len(head))]
            lines = [map(_plain, head), rule, *(map(_plain, row) for row in rows)]
            text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
            return f"### {_plain(folded)}\n\n{text}" if folded else text
        case Picture(name, caption):
            return f"![{_plain(name)}](figures/{name})\n\n*{_plain(caption)}*"
        case Interactive(_, picture):
            return _markdown(picture)
        case Code(text):
            return "\n".join(f"    {line}" for line in text.splitlines())


def _plain(text: str) -> str:
    """Returns text that Markdown shows as it is, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;")
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
