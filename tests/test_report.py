import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from jinja2 import UndefinedError

from sgd_escape import SgdEscapeError
from sgd_escape.claims import Claim
from sgd_escape.report import (
    OutlierCount,
    PassageCount,
    Precision,
    RunTime,
    Size,
    collect_run_times,
    compare_sizes,
    count_outliers,
    count_passages,
    embed_figures,
    group_claims,
    number,
    render,
)

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "workflow" / "report" / "report.html.jinja2"
# One pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
VOID = {"meta", "link", "img", "br", "hr"}


def claim(name: str, verdict: str = "reproduced", **numbers: float) -> Claim:
    values = {"predicted": 10.0, "measured": 10.1, "low": 9.9, "high": 10.3} | numbers
    return Claim(name, "Eq. (15)", "It is a < b & c.", **values, verdict=verdict, fidelity="exact")


CLAIMS = [
    claim("exponent[d=1,eta=0.1,B=1]"),
    claim("exponent[d=5,eta=0.1,B=1]", "not reproduced"),
    claim("large", "inconclusive", measured=math.nan, low=math.nan, high=math.nan),
    *(claim(f"long[seed={seed}]") for seed in range(13)),
]


class Page(HTMLParser):
    """Elements with their attributes, the text, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def content() -> dict[str, Any]:
    names = ["fig6", "residuals", "fig3b", "fig3a"]
    captions = {name: f'What {name}\nshows, "in" <short>.' for name in names}
    return {
        "claims": CLAIMS,
        "figures": embed_figures(dict.fromkeys(names, PNG), captions),
        "sizes": [Size("network.runs", 100, 10), Size("network.hidden_units", 10, 10)],
        "passage_counts": [PassageCount("network", "eta=0.006,B=10", 100, 61, 39, 0)],
        "outcomes": [
            {"file": "a.nc", "outcome": "dead_units", "count": "3", "meaning": "never fire"}
        ],
        "precisions": [Precision("seed1_eta0.009_B10", 300, 4.1, 4.5, 0.5, "narrow enough")],
        "outliers": [
            OutlierCount(0, 64.9, 16.6, 1, {0.01: 52, 0.1: 7}),
            OutlierCount(1, 70.2, 15.9, 2, {0.01: 50, 0.1: 8}),
        ],
        "minimum": {"seed": 1, "curvature": 95.1, "effective_dimension": 13.0},
        "config": {"seed": 20, "data": {"folder": "<b>"}, "fits": {"confidence": 0.9}},
        "versions": {"numpy": "2.3.4"},
        "run_times": [RunTime("pretrain", 5, 61.24, math.nan)],
    }


def test_the_page_shows_every_claim_with_its_verdict_as_a_word(content: dict[str, Any]) -> None:
    html = render(TEMPLATE, **content)
    rows = [row["data-claim"] for row in Page(html).all("tr") if "data-claim" in row]
    assert rows == [entry.id for entry in CLAIMS]
    for entry in CLAIMS:
        row = re.search(rf'<tr data-claim="{re.escape(entry.id)}">(.*?)</tr>', html, re.DOTALL)
        assert row
        assert f">{entry.verdict}</span>" in row[1]


def test_the_page_names_the_level_of_its_intervals(content: dict[str, Any]) -> None:
    html = render(TEMPLATE, **content)
    assert "90\N{NO-BREAK SPACE}% interval</th>" in html
    assert "95" not in Page(html).text.replace("95.6", "").replace("95.1", "")


def test_the_page_counts_the_verdicts(content: dict[str, Any]) -> None:
    html = render(TEMPLATE, **content)
    tally = re.findall(r"<b>(\d+)</b> ([a-z ]+)</li>", html)
    assert tally == [("14", "reproduced"), ("1", "not reproduced"), ("1", "inconclusive")]


def test_every_figure_is_embedded_with_number_alt_text_and_caption(
    content: dict[str, Any],
) -> None:
    page = Page(render(TEMPLATE, **content))
    images = page.all("img")
    assert [str(image["alt"]).partition(".")[0] for image in images] == [
        "Figure 3(a)",
        "Figure 3(b)",
        "Figure 6",
        "Additional figure: residuals",
    ]
    for image in images:
        data = str(image["src"]).removeprefix("data:image/png;base64,")
        assert base64.b64decode(data) == PNG
    assert 'What fig3a shows, "in" <short>.' in page.text


def test_what_looks_like_html_is_shown_as_text(content: dict[str, Any]) -> None:
    hostile = "<script>alert(1)</script>'\" onload=alert(1) {{ 7 * 7 }} <img src=x>"
    content["figures"] = embed_figures({"fig6": PNG}, {"fig6": hostile})
    content["config"] |= {"data": {"folder": hostile}}
    content["claims"] = [CLAIMS[0]._replace(statement=hostile, id=f"{hostile}[d=1]")]
    content["versions"] = {hostile: hostile}
    content["outcomes"] = [dict.fromkeys(content["outcomes"][0], hostile)]
    html = render(TEMPLATE, **content)
    page = Page(html)
    assert "<script" not in html
    assert len(page.all("img")) == 1
    assert not any("onload" in attributes for _, attributes in page.elements)
    assert page.text.count("alert(1)</script>") >= 5
    assert "{{ 7 * 7 }}" in page.text


def test_the_page_loads_nothing_from_elsewhere(content: dict[str, Any]) -> None:
    html = render(TEMPLATE, **content)
    for _, attributes in Page(html).elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"https?://|@import|url\(|<script", html)


def test_text_from_elsewhere_cannot_become_markup(content: dict[str, Any]) -> None:
    page = Page(render(TEMPLATE, **content))
    assert page.text.count("It is a < b & c.") == 3
    assert "folder: <b>" in page.text


def test_long_groups_are_folded_and_short_ones_open(content: dict[str, Any]) -> None:
    groups = group_claims(CLAIMS)
    assert [(group.stem, len(group.claims), group.is_open) for group in groups] == [
        ("exponent", 2, True),
        ("large", 1, True),
        ("long", 13, False),
    ]
    folds = Page(render(TEMPLATE, **content)).all("details")
    assert ["open" in fold for fold in folds[:3]] == [True, True, False]


def test_every_table_stands_in_a_box_that_scrolls(content: dict[str, Any]) -> None:
    elements = Page(render(TEMPLATE, **content)).elements
    before = [
        elements[i - 1][1].get("class") for i, (tag, _) in enumerate(elements) if tag == "table"
    ]
    assert len(before) == 10
    assert set(before) == {"table"}


def test_sizes_runs_versions_and_times_are_on_the_page(content: dict[str, Any]) -> None:
    html = render(TEMPLATE, **content)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", html)]
    assert ["network.runs", "100", "10", "scaled"] in cells
    assert ["network.hidden_units", "10", "10", "exact"] in cells
    assert ["network", "η = 0.006, B = 10", "100", "61", "39", "0"] in cells
    assert ["numpy", "2.3.4"] in cells
    assert ["pretrain", "5", "61.2", "–"] in cells
    assert "seed 1," in html


def test_a_report_without_run_times_says_so(content: dict[str, Any]) -> None:
    assert "No run times were recorded" in render(TEMPLATE, **content | {"run_times": []})


def test_a_template_that_asks_for_more_than_it_is_given_fails(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    template = tmp_path / "page.jinja2"
    template.write_text("{{ author }}")
    with pytest.raises(UndefinedError, match="author"):
        render(template, **content)


def test_numbers_have_four_digits_and_signs_that_print_well() -> None:
    values = [0.0333333, 7861.0, -0.5, math.nan, -math.inf]
    assert [number(value) for value in values] == ["0.03333", "7861", "−0.5", "–", "−∞"]


def test_a_figure_without_caption_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match="fig3a needs a caption"):
        embed_figures({"fig3a": PNG}, {"fig3a": " \n"})


def test_a_figure_that_is_no_png_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match=r"fig3a\.png is no whole PNG"):
        embed_figures({"fig3a": b"%PDF"}, {"fig3a": "Caption."})


def test_a_figure_that_is_cut_or_has_a_flipped_bit_is_refused() -> None:
    places = range(len(PNG))
    flipped = [PNG[:place] + bytes([PNG[place] ^ 1]) + PNG[place + 1 :] for place in places]
    cut = [PNG[:length] for length in places]
    for damaged in [*flipped, *cut]:
        with pytest.raises(SgdEscapeError, match=r"fig3a\.png is no whole PNG image: .* Delete it"):
            embed_figures({"fig3a": damaged}, {"fig3a": "Caption."})


def test_sizes_are_those_of_the_paper_beside_ours() -> None:
    paper = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text(encoding="utf-8"))
    sizes = compare_sizes({"network": {"hidden_units": 4}}, paper)
    assert Size("network.hidden_units", 10, 4) in sizes
    assert Size("linear_regression.first_passage.runs", 100, None) in sizes


def test_passages_are_counted_at_the_highest_threshold() -> None:
    dims = ["eta", "batch_size"]
    fit = xr.Dataset(
        {
            "events": ([*dims, "threshold"], [[[10, 7]], [[9, 2]]]),
            "runs": (dims, [[10], [10]]),
            "censored": ([*dims, "threshold"], [[[0, 3]], [[1, 8]]]),
            "diverged": (dims, [[0], [1]]),
        },
        {"eta": [0.1, 0.2], "batch_size": [1], "threshold": [1.1, 2.0]},
    )
    assert count_passages("network", fit) == [
        PassageCount("network", "eta=0.1,B=1", 10, 7, 3, 0),
        PassageCount("network", "eta=0.2,B=1", 10, 2, 8, 1),
    ]


def test_run_times_are_summed_by_rule(tmp_path: Path) -> None:
    header = "s\th:m:s\tmax_rss\tmax_vms\n"
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "seed0.tsv").write_text(f"{header}10.5\t0:00:10\t400.25\t900\n")
    (tmp_path / "pretrain" / "seed1.tsv").write_text(f"{header}20.25\t0:00:20\t300.5\t900\n")
    (tmp_path / "claims.tsv").write_text(f"{header}0.25\t0:00:00\t-\t-\n")
    claims, pretrain = collect_run_times(tmp_path)
    assert claims[:3] == ("claims", 1, 0.25)
    assert math.isnan(claims.peak_memory)
    assert pretrain == RunTime("pretrain", 2, 30.75, 400.25)


@pytest.mark.parametrize("content", ["s\n", "s\tmax_rss\n0.2\n", "s\tmax_rss\nx\t1\n", "s\x00"])
def test_a_damaged_benchmark_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "claims.tsv").write_text(content)
    with pytest.raises(SgdEscapeError, match=r"claims\.tsv is damaged: .* Delete it"):
        collect_run_times(tmp_path)


def test_a_benchmark_that_is_just_being_written_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "claims.tsv").touch()
    assert collect_run_times(tmp_path) == []


def test_without_benchmarks_there_are_no_run_times(tmp_path: Path) -> None:
    assert collect_run_times(tmp_path / "none") == []


def test_the_page_compares_the_estimators_of_the_effective_dimension(
    content: dict[str, Any],
) -> None:
    cells = re.findall(r"<td[^>]*>(.*?)</td>", render(TEMPLATE, **content))
    start = cells.index("64.9") - 1
    assert cells[start : start + 6] == ["0", "64.9", "16.6", "1", "52", "7"]
    assert cells[start + 6 : start + 12] == ["1", "70.2", "15.9", "2", "50", "8"]


def test_outliers_are_counted_from_a_hessian_file() -> None:
    hessian = xr.Dataset(
        {
            "eigenvalue": ("index", [50.0, 20.0, 0.1]),
            "effective_dimension": 1.7,
            "gap_dimension": 2,
            "threshold_dimension": ("fraction", [2, 1]),
        },
        {"fraction": [0.1, 0.5]},
        {"seed": 3},
    )
    assert count_outliers(hessian) == OutlierCount(3, 50.0, 1.7, 2, {0.1: 2, 0.5: 1})


def test_named_outcomes_are_on_the_page_and_their_absence_is_said(content: dict[str, Any]) -> None:
    cells = re.findall(r"<td[^>]*>(.*?)</td>", render(TEMPLATE, **content))
    assert {"a.nc", "dead units", "3", "never fire"} <= set(cells)
    assert "No run diverged" not in render(TEMPLATE, **content)
    assert "No run diverged" in render(TEMPLATE, **content | {"outcomes": []})


def test_why_runs_ceased_to_be_added_is_on_the_page_where_any_were(content: dict[str, Any]) -> None:
    cells = re.findall(r"<td[^>]*>(.*?)</td>", render(TEMPLATE, **content))
    assert {"seed1, eta0.009, B10", "300", "[4.1, 4.5]", "0.5", "narrow enough"} <= set(cells)
    assert "Runs added for precision" not in render(TEMPLATE, **content | {"precisions": []})


@pytest.mark.parametrize(
    ("exponent", "low", "high"), [([4.3, 4.1, 4.5], 4.1, 4.5), (None, math.nan, math.nan)]
)
def test_a_decision_on_precision_is_read_with_or_without_an_exponent(
    exponent: list[float] | None, low: float, high: float
) -> None:
    assessment = {"runs": 200, "exponent": exponent, "exponent_width": 0.5, "reason_to_stop": "x"}
    found = Precision.of("first_passage_seed1_eta0.009_B10_rounds2", assessment)
    assert found[:2] == ("seed1_eta0.009_B10", 200)
    np.testing.assert_equal([found.low, found.high], [low, high])
    assert (found.width, found.reason) == (0.5, "x")
