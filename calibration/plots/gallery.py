"""All figures by name, in the report's order."""

from collections.abc import Callable, Iterable

from calibration.plots import (
    accuracy_pictures,
    coefficients,
    lengths_map,
    predicted,
    residuals,
    sensitivity,
    style,
    tradeoff,
    triangle,
)
from calibration.plots.picture import Picture, PictureUnavailable
from calibration.plots.plot_data import PlotData, Told
from calibration.tables.columns import BadInput, check_choice

_FAMILIES: tuple[tuple[tuple[str, ...], Callable[[PlotData], list[Picture]]], ...] = (
    (tradeoff.NAMES, tradeoff.draw_tradeoff),
    (sensitivity.NAMES, sensitivity.draw_sensitivity),
    (triangle.NAMES, triangle.draw_triangle),
    (lengths_map.NAMES, lengths_map.draw_lengths_map),
    (predicted.NAMES, predicted.draw_predicted),
    (residuals.NAMES, residuals.draw_residuals),
    (coefficients.NAMES, coefficients.draw_coefficients),
    (accuracy_pictures.NAMES, accuracy_pictures.draw_accuracy),
)
NAMES = tuple(name for names, _ in _FAMILIES for name in names)


def check_picture_names(only: Iterable[str]) -> None:
    """Raise BadInput for an unknown figure name."""
    for name in only:
        check_choice(name, "--only", NAMES)


def draw_pictures(
    material: PlotData, only: Iterable[str] = (), told: Told = lambda _: None
) -> tuple[list[Picture], dict[str, str]]:
    """Return the figures, and by name the reason why others could not be drawn.

    Raises BadInput where a picture that was asked for by name is one of the latter.
    """
    asked = set(only)
    drawn: list[Picture] = []
    missing: dict[str, str] = {}
    for names, family in _FAMILIES:
        wanted = [name for name in names if not asked or name in asked]
        if not wanted:
            continue
        told(f"drawing {wanted[0]}")
        try:
            with style.apply_style():
                found = family(material)
        except PictureUnavailable as error:
            missing |= dict.fromkeys(wanted, str(error))
            continue
        have = {one.name for one in found}
        drawn += [one for one in found if one.name in wanted]
        missing |= {name: "nothing of it was measured" for name in wanted if name not in have}
    for name in sorted(asked & set(missing)):
        raise BadInput(f"--only {name}: {missing[name]}")
    return drawn, missing
