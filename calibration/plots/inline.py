"""A figure embedded in a page: its SVG, in the page's colours, with unique ids."""

import re

from calibration.plots import style
from calibration.plots.picture import Picture

_VARIABLES = {style.INK: "var(--ink)", style.PAPER: "var(--paper)", style.MUTED: "var(--muted)"}
_DARK_ONES = {"#0072b2": "var(--blue)", "#009e73": "var(--green)", "#d55e00": "var(--vermillion)"}
"""Model colours that are lightened on a dark page."""
_ID = re.compile(r'\bid="')
_REFERENCE = re.compile(r'(url\(#|xlink:href="#)')
_BACKGROUND = re.compile(r'<g id="patch_1">.*?</g>', re.DOTALL)


def render_inline_svg(picture: Picture) -> str:
    """Return an <svg> element whose text and lines take the page's colour, dark or light."""
    text = style.encode_figure(picture.figure, "svg", picture.name).decode()
    text = text[text.index("<svg") :]
    # The first patch is the figure's own background: the page has one.
    text = _BACKGROUND.sub("", text, count=1)
    for colour, variable in (_VARIABLES | _DARK_ONES).items():
        text = re.sub(rf"(fill|stroke): {colour}", rf"\1: {variable}", text)
    prefix = f"{picture.name}-"
    text = _ID.sub(f'id="{prefix}', text)
    text = _REFERENCE.sub(rf"\1{prefix}", text)
    # The figure around it bears the name; sizes come from the page.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(
        r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1)  # fmt: skip
