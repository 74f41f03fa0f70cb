"""What the command line shows meanwhile."""

from thicket_jax.cli import progress as showing
from thicket_jax.search.problem import Watch


def test_progress_lines_show_tokens_best_and_base():
    said = []
    with showing._Progress(said.append) as progress:
        progress(Watch(0, 20, None, 0.25, 0))
        progress(Watch(2, 20, 0.5, 0.25, 6000))
        progress(Watch(3, 20, 0.5, 0.25, 9000))
        progress(Watch(20, 20, 0.625, None, None))
    assert len(said) == 2
    for part in ("2/20 experts, ", "/s, ", " tokens/s, ", "best 0.5, ", "base 0.25, ", " s left"):
        assert part in said[0]
    assert "tokens" not in said[1] and "base" not in said[1] and "best 0.625" in said[1]


def test_the_bar_shows_tokens_best_and_base(capsys):
    with showing._Progress(lambda text: None) as progress:
        progress.terminal = True
        progress(Watch(0, 20, None, 0.25, 0))
        progress(Watch(20, 20, 0.5, 0.25, 6000))
    text = capsys.readouterr().err
    assert "20/20" in text and "tokens/s, best 0.5, base 0.25" in text
