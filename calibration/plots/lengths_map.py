"""Which model is chosen, over tokens in x tokens out, for given weights."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from calibration.arrays import Floats
from calibration.plots import choices, style
from calibration.plots.picture import Picture, PictureTable, describe_tied_models, format_weights
from calibration.plots.plot_data import PlotData
from gateway.profile import ModelProfile
from gateway.scheduling.decision import MetricWeights

NAMES = ("lengths",)
_STEPS = 60
_IN, _OUT = 8192, 4096
_LABEL_SHARE = 0.04
_PANEL_INCHES = 2.9
_SHOWN = ((16, 16), (16, 256), (64, 45), (256, 256), (1024, 64), (2048, 512), (4096, 1024))

WinnerMap = NDArray[np.intp]


def draw_lengths_map(material: PlotData) -> list[Picture]:
    """Draw one map per policy and weights."""
    policies, weights = choices.POLICY_NAMES, material.weights
    names = list(material.profile.models)
    x, y = build_token_axis(_IN), build_token_axis(_OUT)
    drawn = style.create_figure(1.2 + 3.2 * len(weights), 6.8)
    grid = drawn.subplots(len(policies), len(weights), sharex=True, sharey=True, squeeze=False)
    tables, notes = [], []
    chosen: set[int] = set()
    for row, policy in enumerate(policies):
        priced = [[material.price_request((int(i), int(o)), policy) for i in x] for o in y]
        notes += describe_tied_models(
            choices.find_tied_models([one for line in priced for one in line])
        )
        for column, given in enumerate(weights):
            axes = grid[row, column]
            won = map_winners(priced, names, np.array([[given.accuracy, given.energy, given.time]]))
            _draw_panel(material, axes, (x, y), won)
            chosen |= set(np.unique(won).tolist())
            axes.set_title(f"{policy}\n{format_weights(given)}")
            tables.append(
                _build_table(material, f"{policy}: {format_weights(given)}", given, policy, won)
            )
        grid[row, 0].set_ylabel("Tokens out (new tokens)")
    for column in range(len(weights)):
        grid[-1, column].set_xlabel("Tokens in (prompt)")
    boxed = _find_fitted_range(material) is not None
    handles: list[Patch | Line2D] = [
        style.build_legend_patch(name, material.get_model_style(name), wins=place in chosen)
        for place, name in enumerate(names)
    ]
    if boxed:
        handles.append(
            Patch(fill=False, edgecolor=style.INK, ls="--", lw=1.3, label="fitted range")
        )
    handles.append(Line2D([], [], color=style.INK, ls=":", lw=1.6, label="expected answer"))
    style.add_legend(drawn, handles)
    if boxed:
        notes.append("Everything outside the dashed box is extrapolation for at least one model.")
    return [
        Picture(
            "lengths",
            "Which model wins over the lengths",
            "Both axes are logarithmic. The dotted line is the answer length that the profile "
            "expects of a prompt; the dashed box is the range in which every model was measured. "
            "Context windows are in the gateway's config, not in the profile, and are left out: "
            "a model that is too small for a length may win here.",
            drawn,
            tables,
            list(dict.fromkeys(notes)),
        )
    ]


def build_token_axis(most: int) -> NDArray[np.int64]:
    """Return integer token counts from 1 to `most`, evenly spaced on a logarithmic axis."""
    return np.unique(np.geomspace(1, most, _STEPS).round().astype(np.int64))


def map_winners(
    priced: list[list[choices.PricedModels]], names: list[str], weights: Floats
) -> WinnerMap:
    """Return for each length the chosen model's index in `names`."""
    return np.array(
        [
            [names.index(one.names[int(choices.find_winners(one, weights)[0])]) for one in line]
            for line in priced
        ]
    )


def _draw_panel(
    material: PlotData,
    axes: Axes,
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    won: WinnerMap,
) -> None:
    x, y = at
    style.set_log_axis(axes, "x", 1, _IN)
    style.set_log_axis(axes, "y", 1, _OUT)
    for axis, most in ((axes.xaxis, _IN), (axes.yaxis, _OUT)):
        axis.set_major_locator(FixedLocator([4**power for power in range(7) if 4**power <= most]))
    for place, name in enumerate(material.profile.models):
        mask = (won == place).astype(float)
        if not mask.any():
            continue
        look = material.get_model_style(name)
        axes.contourf(x, y, mask, levels=[0.5, 1.5], colors=[look.colour], alpha=0.32)
        hatched = axes.contourf(x, y, mask, levels=[0.5, 1.5], colors="none", hatches=[look.hatch])
        hatched.set_edgecolor(look.colour)
        hatched.set_linewidth(0.8)
        if mask.mean() > _LABEL_SHARE:
            left, up = _find_label_point(material, at, mask)
            across = mask[np.searchsorted(y, round(up))].mean() * _PANEL_INCHES
            if not style.label_fits(style.shorten_name(name), float(across)):
                continue
            axes.text(
                left, up, style.shorten_name(name), ha="center", va="center", fontsize=8,
                bbox=style.build_label_box(), zorder=6,
            )  # fmt: skip
    box = _find_fitted_range(material)
    if box is not None:
        left, right, low, high = box
        axes.add_patch(
            Rectangle(
                (left, low),
                right - left,
                high - low,
                fill=False,
                edgecolor=style.INK,
                ls="--",
                lw=1.3,
                zorder=5,
            )
        )
    fine = np.geomspace(1, _IN, 200)
    for model in material.profile.models.values():
        axes.plot(fine, _predict_tokens_out(model, fine), color=style.INK, ls=":", lw=1.6, zorder=4)


def _find_label_point(
    material: PlotData, at: tuple[NDArray[np.int64], NDArray[np.int64]], mask: Floats
) -> tuple[float, float]:
    """Return the point in a model's region of the map with most space for its name."""
    across, up = np.meshgrid(np.log(at[0]), np.log(at[1]))
    places = np.column_stack([across.ravel(), up.ravel()])
    own = mask.ravel() > 0.0
    frame = [(x, y) for x in (0.0, np.log(_IN)) for y in np.linspace(0.0, np.log(_OUT), 20)]
    frame += [(x, y) for y in (0.0, np.log(_OUT)) for x in np.linspace(0.0, np.log(_IN), 20)]
    fine = np.geomspace(1, _IN, 40)
    for model in material.profile.models.values():
        frame += list(zip(np.log(fine), np.log(_predict_tokens_out(model, fine)), strict=True))
    box = _find_fitted_range(material)
    if box is not None:
        left, right, low, high = (float(np.log(end)) for end in box)
        frame += [(x, y) for x in np.linspace(left, right, 8) for y in (low, high)]
        frame += [(x, y) for y in np.linspace(low, high, 8) for x in (left, right)]
    obstacles = np.vstack([places[~own], np.array(frame)])
    x, y = np.exp(places[own][style.find_roomiest_point(places[own], obstacles)])
    return float(x), float(y)


def _predict_tokens_out(model: ModelProfile, tokens_in: Floats) -> Floats:
    """Return the profile's own expected new tokens."""
    line = model.to_output_model()
    each = [
        line.describe(one * model.tokens.ratio).compute_mean(1.0, choices.UNLIMITED)
        for one in tokens_in
    ]
    return np.array(each, dtype=float)


def _find_fitted_range(material: PlotData) -> tuple[float, float, float, float] | None:
    """Return the lengths within all fits' ranges; None if empty or if no fit states a range."""
    ends = []
    for key in ("tokens_in", "tokens_out"):
        ranges = [
            cost.fitted_range[key]
            for model in material.profile.models.values()
            for cost in (model.seconds, model.joules)
            if key in cost.fitted_range
        ]
        if not ranges:
            return None
        ends += [max(1.0, *(low for low, _ in ranges)), min(high for _, high in ranges)]
    left, right, low, high = ends
    return (left, right, low, high) if left < right and low < high else None


def _build_table(
    material: PlotData, title: str, given: MetricWeights, policy: str, won: WinnerMap
) -> PictureTable:
    weights = np.array([[given.accuracy, given.energy, given.time]])
    rows = []
    for length in _SHOWN:
        priced = material.price_request(length, policy)
        rows.append(
            (f"{length[0]:,} in, {length[1]:,} out",
             priced.names[int(choices.find_winners(priced, weights)[0])])
        )  # fmt: skip
    for place, name in enumerate(material.profile.models):
        rows.append((f"share of the map: {name}", f"{(won == place).mean():.1%}"))
    return PictureTable(title, ("length", "wins"), rows)
