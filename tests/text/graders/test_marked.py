"""What a text marks as its answer."""

import pytest

from thicket_jax.text.graders import marked

LONG = 20_000


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"{ \boxed{\{1\}} ", r"\{1\}"),
        (r"} \boxed{}", ""),
        ("boxed{1}", None),
        (r"\boxed{" * LONG, None),
        ("{" * LONG + r"\boxed{1}", "1"),
    ],
)
def test_the_last_balanced_box_counts(text, content):
    assert marked.boxed(text) == content
