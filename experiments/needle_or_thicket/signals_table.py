"""The table of `experiments/signals`, whose numbers stand over the paper's picture."""

import json
import pathlib
from typing import Any

PLACE = pathlib.Path(__file__).resolve().parents[1] / "signals" / "results" / "table.json"


def signals_table() -> dict[str, Any]:
    """Returns the entries of the table."""
    return json.loads(PLACE.read_text())
