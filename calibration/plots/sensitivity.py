"""Share of prompts for which each model is chosen, as one weight goes from 0 to 1."""

import numpy as np
from matplotlib.axes import Axes

from calibration.arrays import Floats
from calibration.plots import choices, style
from calibration.plots.picture import Picture, PictureTable, describe_tied_models
from calibration.plots.plot_data import PlotData
from gateway.scheduling.decision import METRICS

NAMES = ("sensitivity",)
STEPS = 201
_SHOWN = (0, 40, 80, 100, 120, 160, 200)


def draw_sensitivity(material: PlotData) -> list[Picture]:
    """Draw one panel per policy and weight."""
    names = list(material.profile.models)
    drawn = style.create_figure(10.4, 5.6)
    grid = drawn.subplots(
        len(choices.POLICY_NAMES), len(METRICS), sharex=True, sharey=True, squeeze=False
    )
    at = np.linspace(0.0, 1.0, STEPS)
    tables, pairs = [], []
    chosen: set[str] = set()
    for row, policy in enumerate(choices.POLICY_NAMES):
        priced = {
            length: material.price_request((length, None), policy) for length in material.prompts
        }
        pairs += choices.find_tied_models(list(priced.values()))
        for column, metric in enumerate(METRICS):
            got = compute_shares(material, priced, column)
            _draw_panel(material, grid[row, column], at, got)
            chosen |= {name for name, share in got.items() if share.max() > 0.0}
            grid[row, 0].set_ylabel(f"{policy}\nShare of requests (%)")
            grid[-1, column].set_xlabel(f"Weight of {metric} (others split evenly)")
            tables.append(_build_table(policy, metric, names, got))
    style.add_legend(
        drawn,
        [
            style.build_legend_patch(name, material.get_model_style(name), wins=name in chosen)
            for name in names
        ],
    )
    drawn.supxlabel(f"Prompts: {material.prompts_from}", fontsize=8, color=style.MUTED)
    return [
        Picture(
            "sensitivity",
            "Share of each model by weight",
            "Heights add up to 100%. A steep edge is a weight at which many requests change "
            "models at once; a slope means that it depends on the request's length. The other two "
            "weights share the rest evenly. Answer lengths are those that the profile expects. "
            f"Prompts: {material.prompts_from}.",
            drawn,
            tables,
            describe_tied_models(list(dict.fromkeys(pairs))),
        )
    ]


def compute_shares(
    material: PlotData, priced: dict[int, choices.PricedModels], metric: int
) -> dict[str, Floats]:
    """Return each model's share of the prompts, from 0 to 1, at each of STEPS weights."""
    weights = choices.sweep_weight(metric, STEPS)
    found = {name: np.zeros(STEPS) for name in material.profile.models}
    total = sum(material.prompts.values())
    for length, count in material.prompts.items():
        won = choices.find_winners(priced[length], weights)
        for place, name in enumerate(priced[length].names):
            found[name] += (won == place) * (count / total)
    return found


def _draw_panel(material: PlotData, axes: Axes, at: Floats, got: dict[str, Floats]) -> None:
    base = np.zeros(len(at))
    for name, share in got.items():
        top = base + share * 100.0
        if share.max() > 0.0:
            look = material.get_model_style(name)
            style.fill_hatched(
                lambda base=base, top=top, **how: axes.fill_between(at, base, top, **how), look
            )
            if top.min() < 100.0:  # noqa: PLR2004 - at 100% the curve would be the frame's edge
                axes.plot(at, top, color=style.INK, ls=look.line, lw=1.2)
        base = top
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 100.0)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def _build_table(
    policy: str, metric: str, names: list[str], got: dict[str, Floats]
) -> PictureTable:
    at = np.linspace(0.0, 1.0, STEPS)
    rows = [(name, *(f"{got[name][step]:.0%}" for step in _SHOWN)) for name in names]
    return PictureTable(
        f"{policy}: share by weight of {metric}",
        ("model", *(f"{at[step]:.1f}" for step in _SHOWN)),
        rows,
    )
