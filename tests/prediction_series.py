"""How the series of predictions are named: sums have their quantity's unit in their name."""


def name_prediction_series(name, model, quantity, profile):
    """The metric's whole name and its labels; `name` as in `observed_total`."""
    labels = {"model": model, "profile": profile}
    if name == "requests_total":
        labels["quantity"] = quantity
    else:
        unit = quantity.removeprefix("output_")
        name = f"{name.removesuffix('_total')}_{unit}_total"
    return f"joulegate_prediction_{name}", labels
