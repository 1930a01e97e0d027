"""The page for a browser: whole, escaped, and without anything from elsewhere."""

import re
from html.parser import HTMLParser

from gateway.api.root import render_page

VOID = {"meta", "br"}
SERVED = {"/metrics", "/ready", "/v1/models", "/schema/openapi.json"}


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.links, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_it_names_models_presets_and_where_to_go():
    page = render_page({"phi-3-mini": 4096, "org/m": 32_768}, ["eco"], 3, 4, served=SERVED)
    read_page = read(page)
    for said in ("phi-3-mini", "4,096", "org/m", "32,768", "auto:eco", "3 of 4 backends usable"):
        assert said in read_page.text
    assert {"metrics", "ready", "v1/models", "schema/openapi.json"} < set(read_page.links)
    assert 'name="viewport"' in page
    page = render_page({}, [], 0, 0, served=SERVED - {"/metrics"})
    assert "metrics" not in read(page).links


def test_names_are_escaped():
    page = render_page({"<script>alert(1)</script>&": 10}, ['"><img>'], 1, 1, served=SERVED)
    assert "<script>alert" not in page
    assert "<img>" not in page
    assert "<script>alert(1)</script>&" in read(page).text


def test_nothing_is_loaded_from_elsewhere():
    page = render_page({"m": 10}, [], 1, 1, served=SERVED)
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(", page)
