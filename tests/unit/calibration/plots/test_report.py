"""`joulegate report`: one file that needs nothing else."""

import re
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.plots import gallery, output, style
from calibration.plots import html_report as report
from calibration.plots import plot_data as material
from gateway import profile

pytestmark = pytest.mark.slow


def call(*arguments):
    """Run it; returns exit code, stdout, stderr."""
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


class Tags(HTMLParser):
    """What a page holds; complains where tags do not match."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.names = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in {"href", "src", "xlink:href"}:
                self.links.append(value)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    code, text, errors = call("--out", out)
    assert (code, errors) == (0, "")
    assert text.startswith(f"wrote {out} (")
    return out.read_text()


def test_the_page_is_whole_and_asks_nobody_for_anything(page):
    tags = Tags(page)
    assert tags.names.count("svg") == 5
    assert not {"script", "link", "iframe", "object", "img"} & set(tags.names)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in tags.links)
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(tags.ids) == len(set(tags.ids))
    for link in tags.links:
        if link.startswith("#"):
            assert link[1:] in tags.ids
    for reference in set(re.findall(r"url\(#([^)]+)\)", page)):
        assert reference in tags.ids


def test_it_says_where_everything_comes_from(page, shipped):
    assert shipped.version in page
    # Called in process, the options are those of whoever runs the tests, who may have given none.
    assert re.search(r"<code>joulegate[^<]*</code>", page)
    for name, model in shipped.models.items():
        assert f'<th scope="row">{name}</th>' in page
        assert model.provenance["weakness"][:60] in page
        assert model.provenance["source"] in page
    assert "needs measured rows: --rows FILE" in page
    assert "matplotlib" in page


def test_every_picture_has_its_numbers_beside_it(page):
    for section in page.split("<section id=")[1:]:
        assert "<table>" in section


def test_it_fits_a_phone(page):
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page
    narrow = page.partition("@media (max-width: 40rem) {")[2].partition("@media print")[0]
    assert "figure svg { min-width: 0; }" in narrow
    assert "white-space: normal" in narrow
    # What is still too wide scrolls by itself and not the page.
    assert ".wide { overflow-x: auto" in page


def test_it_reads_in_the_dark(page):
    assert "prefers-color-scheme: dark" in page
    body = page.split("</head>")[1]
    for colour in (style.INK, style.PAPER, style.MUTED):
        assert f": {colour}" not in body
    assert "fill: var(--ink)" in body


def test_the_same_inputs_give_the_same_page():
    def made():
        sources = material.PlotSources(length=["64:64"])
        found = material.load_plot_data(sources)
        pictures, missing = gallery.draw_pictures(found, ["tradeoff", "triangle"])
        return report.render_page(found, pictures, missing, sources, "joulegate report")

    assert made() == made()


def test_what_a_profile_says_is_escaped(shipped, tmp_path):
    phi = shipped.models["phi-3-mini"]
    told = {"<b>": "<script>alert(1)</script>", "flags": ["a < b"], "n": {"rows": [1, 2]}}
    model = profile.ModelProfile(phi.accuracy, phi.seconds, phi.joules, provenance=told)
    path = tmp_path / "p.json"
    profile.save_profile({"<i>&model": model, "b": shipped.models["mistral-7b"]}, path)
    sources = material.PlotSources(profile=path)
    found = material.load_plot_data(sources)
    pictures, missing = gallery.draw_pictures(found, ["coefficients"])
    page = report.render_page(found, pictures, missing, sources, "joulegate <report>")
    assert not {"script", "i"} & set(Tags(page).names)
    assert "a &lt; b" in page
    assert "rows: 1, 2" in page
    assert "joulegate &lt;report&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--profile", "none.json"], "none.json: No such file"),
        (["--rows", "rows.csv"], "rows.csv: no column"),
        (["--profile", "p.json", "--out", "p.json"], "--out p.json: is one of the files to read"),
        (["--out", "nowhere/r.html"], "--out nowhere/r.html: there is no directory nowhere"),
        (["--out", "."], "--out .: is a directory"),
    ],
)
def test_bad_input_is_one_message_and_leaves_files_alone(
    tmp_path, monkeypatch, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    files = {"rows.csv": "a,b\n1,2\n", "p.json": "{}", "report.html": "old"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    code, text, errors = call(*arguments)
    assert (code, text) == (2, "")
    assert errors.startswith("joulegate: ")
    assert errors.count("\n") == 1
    assert complaint in errors
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_write_that_fails_leaves_the_old_files(tmp_path):
    old = tmp_path / "a.svg"
    old.write_text("old")
    with pytest.raises(OSError, match="No such file"):
        output.write_files({old: b"new", tmp_path / "gone" / "b.svg": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]
    assert old.read_text() == "old"


def test_the_report_of_150_000_rows_shows_a_sample_of_them(shared_data, tmp_path):
    seeds = shared_data / "seed_profiles"
    names = {
        "phi-3-mini": "phi-3-mini-4k-instruct",
        "mistral-7b": "mistral-7B-instruct-v0.2",
        "falcon-7b": "falcon-7b-instruct",
    }
    arguments = ["--output-includes-prompt", "--out", tmp_path / "r.html"]
    for ours, theirs in names.items():
        arguments += ["--rows", seeds / f"metrics_{theirs}.csv.gz", "--model", f"{ours}={theirs}"]
    for pair in ("tokens_in=input_tokens", "tokens_out=output_tokens",
                 "seconds=runtime_seconds", "joules=energy_joules"):  # fmt: skip
        arguments += ["--col", pair]
    code, _, errors = call(*arguments)
    assert (code, errors) == (0, "")
    page = (tmp_path / "r.html").read_text()
    tags = Tags(page)
    assert tags.names.count("svg") == 8
    assert len(tags.ids) == len(set(tags.ids))
    assert "2,000 of 51,234 rows shown" in page
    assert "48,522 rows" not in page
    assert "48,521 rows" in page
