"""The `MODEL=COLUMN` options that say where labels stand."""

from collections.abc import Sequence

from calibration.tables.columns import BadInput


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Read `MODEL=COLUMN` options. Raises BadInput."""
    found: dict[str, str] = {}
    for text in texts:
        model, equals, column = text.partition("=")
        if not (model and equals and column):
            raise BadInput(f"--label {text}: want MODEL=COLUMN")
        if model in found:
            raise BadInput(f"--label {text}: {model!r} is named twice")
        found[model] = column
    return found
