"""The report: a self-contained and accessible page."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from matplotlib.container import ErrorbarContainer

from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.tables.figures import quality_plots
from neuroal.tables.plots import MARKERS, log_ticks, styles
from neuroal.tables.report import report, write_report
from neuroal.tables.selection import Selection
from neuroal.tables.study import Study, study, tables
from tests.synthetic import fill, record


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("records")
    fill(folder, models=("zoo/llama",), pruners=("wanda",), seeds=(0, 1), tasks=("ptb", "rte"))
    return study(folder), folder


@pytest.fixture(scope="module")
def page(studied: tuple[Study, Path]) -> str:
    return report(studied[0], tables(studied[0]))


def images(page: str) -> list[str]:
    data = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [base64.b64decode(text).decode() for text in data]


def test_the_page_makes_no_requests(page: str) -> None:
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"^\s*//.*$", "", page, flags=re.M)) == []
    assert not re.search(r"<link|<script src|@import|url\(|fetch\(|XMLHttp", page)
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    for svg in images(page):
        assert "<image" not in svg
        assert not re.search(r'href="(?!#)', svg)


def test_all_plots_of_the_study_have_a_description(page: str) -> None:
    descriptions = re.findall(r'<img src="[^"]+" alt="([^"]+)"', page)
    for expected in (
        "Perplexity on PTB by sparsity: zoo/llama, Wanda",
        "Density by block: zoo/llama, Wanda, 70 %",
        "Criterion by λ, NeuroAL: zoo/llama, Wanda",
        "Performance by runtime: Wanda, CPU, 1 threads",
    ):
        assert expected in descriptions


def test_bars_show_wins_ties_and_losses_apart(tmp_path: Path) -> None:
    values = {"uniform": (30.0, 20.0, 20.0), "owl": (20.0, 20.0, 30.0), "alpha": (40.0, 40.0, 40.0)}
    for name, of_name in values.items():
        for value, sparsity in zip(of_name, (0.6, 0.7, 0.8), strict=True):
            fields = record(competitor=name, sparsity=sparsity).to_dict()
            fields["metrics"]["wikitext2"]["pruned"]["value"] = value
            save_record(Record.from_dict(fields), tmp_path)
    page = report(one := study(tmp_path), tables(one))
    rows = re.findall(r'<span>([^<]+)</span><span class="count">([^<]+)</span>', page)
    assert sorted(rows) == [
        ("AlphaPruning", "0 / 0 / 3"),
        ("OWL", "1 / 1 / 1"),
        ("Uniform", "1 / 1 / 1"),
    ]


def test_limits_are_announced_once(tmp_path: Path) -> None:
    for name in ("uniform", "owl"):
        save_record(record(competitor=name, tasks=("ptb", "c4", "rte"), limit=8), tmp_path)
    one = study(tmp_path, Selection(limited=True))
    page = report(one, tables(one))
    assert page.count("LIMITED:") == page.count('class="warn"') == 1
    assert page.index("LIMITED:") < page.index("<main>")


def test_panels_of_a_text_share_an_axis_and_show_error_bars(studied: tuple[Study, Path]) -> None:
    folder = studied[1].parent / "two-models"
    fill(folder, pruners=("wanda",), tasks=("ptb",))
    for one in (studied[0], study(folder)):  # several seeds; one seed
        axes = [drawn.axes[0] for drawn in quality_plots(one).values()]
        assert len({plot.get_ylim() for plot in axes}) == 1
        for plot in axes:
            assert plot.get_yscale() == "log"
            low, high = plot.get_ylim()
            assert sum(low <= tick <= high for tick in plot.get_yticks()) >= 3
            bars = [item for item in plot.containers if isinstance(item, ErrorbarContainer)]
            lengths = [
                abs(end[1] - start[1])
                for bar in bars
                for start, end in bar.lines[2][0].get_segments()
            ]
            assert len(lengths) == 5 * 3
            assert min(lengths) > 0


def test_legends_name_the_dense_model_and_the_steps_of_the_search_once(page: str) -> None:
    parts = dict(re.findall(r'<section id="([\w-]+)">(.*?)</section>', page, re.S))
    legends = {name: re.findall(r'<ul class="legend">.*?</ul>', parts[name]) for name in parts}
    assert len(legends["perplexity"]) == len(legends["criterion"]) == 1
    names = re.findall(r"</?[^>]+>([^<]+)</li>", legends["perplexity"][0])
    assert names[-1] == "dense"
    assert "NeuroAL" in names
    names = re.findall(r"</?[^>]+>([^<]+)</li>", legends["criterion"][0])
    assert names == ["60 %", "70 %", "80 %", "blocks", "rows", "chosen λ"]


@pytest.mark.parametrize(("low", "high"), [(19.0, 24.0), (15.0, 160.0), (20.0, 1e7), (5.0, 5.1)])
def test_a_logarithmic_axis_has_a_few_round_ticks(low: float, high: float) -> None:
    ticks = [tick for tick in log_ticks(low, high) if low <= tick <= high]
    assert 2 <= len(ticks) <= 8


def test_texts_of_the_first_seed_are_shown_by_prompt(tmp_path: Path) -> None:
    for name, seed in (("uniform", 0), ("owl", 0), ("owl", 1)):
        texts = {"prompt": "A <b>", "dense": "full\ntext", "pruned": f"{name} & {seed}"}
        fields = record(competitor=name, seed=seed).to_dict() | {"samples": [texts]}
        save_record(Record.from_dict(fields), tmp_path)
    one = study(tmp_path)
    page = report(one, tables(one))
    section = page[page.index('<section id="samples">') :].partition("</section>")[0]
    assert "<h3>A &lt;b&gt; …</h3>" in section
    rows = re.findall(r"<tr data-row.*?</tr>", section, re.S)
    texts_of = [re.sub(r"<[^>]+>", "|", row).split("|") for row in rows]
    cells = [[text for text in row if text.strip()] for row in texts_of]
    assert cells == [
        ["–", "0 %", "dense", "full\ntext"],
        ["Wanda", "70 %", "Uniform", "uniform &amp; 0"],
        ["Wanda", "70 %", "OWL", "owl &amp; 0"],
    ]


def test_a_report_without_texts_has_no_section_for_them(page: str) -> None:
    assert 'id="samples"' not in page


def test_links_lead_to_the_records(studied: tuple[Study, Path], page: str) -> None:
    links = set(re.findall(r'href="([^"#]+)"', page))
    files = {path.name for path in studied[1].glob("*.json")}
    assert links == files


def test_links_from_another_folder_lead_to_the_records(
    studied: tuple[Study, Path], tmp_path: Path
) -> None:
    path = write_report(studied[0], tables(studied[0]), studied[1], tmp_path / "page")
    links = set(re.findall(r'href="([^"#]+)"', path.read_text()))
    assert links
    assert all((path.parent / link).is_file() for link in links)


def test_the_same_records_give_the_same_page(studied: tuple[Study, Path], page: str) -> None:
    again = study(studied[1])
    assert report(again, tables(again)) == page


def test_ids_in_the_page_are_unique(page: str) -> None:
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names)) > 10
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(names)


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    fill(tmp_path, models=('<b>"x"&amp;',), pruners=("wanda",), tasks=("ptb",), sparsities=(0.7,))
    one = study(tmp_path)
    text = report(one, tables(one))
    assert "<b>" not in text
    assert "&lt;b&gt;&quot;x&quot;&amp;amp;" in text


def test_competitors_differ_without_colour() -> None:
    drawn = styles([str(i) for i in range(len(MARKERS))])
    assert len({style.marker for style in drawn.values()}) == len(MARKERS)
    shapes = {(s.colour, s.marker) for s in styles([str(i) for i in range(63)]).values()}
    assert len(shapes) == 63


@pytest.mark.parametrize("lost", ["protan", "deutan", "tritan"])
def test_the_first_colours_stay_apart_for_the_colour_blind(lost: str) -> None:
    """Distance in CIELAB after the loss of one cone type (Viénot 1999; tritan: Brettel 1997)."""
    colours = [simulated(style.colour, lost) for style in styles(list("abcdef")).values()]
    gaps = [
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for i, one in enumerate(colours)
        for other in colours[:i]
    ]
    assert min(gaps) > 8  # a just noticeable difference is about 2.3


LOST = {
    "protan": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deutan": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
    "tritan": ((1.0, 0.15236, -0.15236), (0.0, 0.86717, 0.13283), (0.0, 0.86717, 0.13283)),
}
"""Matrices on linear RGB."""
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)


def simulated(colour: str, lost: str) -> tuple[float, float, float]:
    """Return the CIELAB coordinates of a colour as seen with one cone type missing."""
    codes = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in codes]
    for matrix in (LOST[lost], XYZ):
        linear = [sum(m * c for m, c in zip(row, linear, strict=True)) for row in matrix]
    x, y, z = (
        t ** (1 / 3) if (t := max(c, 0) / w) > 0.008856 else 7.787 * t + 16 / 116
        for c, w in zip(linear, WHITE, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)
