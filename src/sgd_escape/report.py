"""The report: one HTML page with everything in it, rendered from plain data."""

import base64
import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from sgd_escape.claims import Claim, cases, summary
from sgd_escape.config import flatten
from sgd_escape.errors import SgdEscapeError
from sgd_escape.files import RUN_AGAIN

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_OPEN_UP_TO = 12


class ClaimGroup(NamedTuple):
    """All cases of one claim; `is_open` tells whether its table is short enough to be shown."""

    stem: str
    claims: list[Claim]
    counts: dict[str, int]
    is_open: bool


class Figure(NamedTuple):
    """A figure with its label, such as "Figure 3(a)", and the image as a data URI."""

    name: str
    label: str
    caption: str
    image: str


class Size(NamedTuple):
    """A size that the paper states, and ours."""

    key: str
    paper: object
    ours: object


class PassageCount(NamedTuple):
    """What became of the runs of one case; passed and censored at the highest threshold."""

    study: str
    case: str
    runs: int
    passed: int
    censored: int
    diverged: int


class Precision(NamedTuple):
    """Why runs ceased to be added to a case until the interval of its exponent was narrow."""

    case: str
    runs: int
    low: float
    high: float
    width: float
    reason: str

    @classmethod
    def of(cls, name: str, assessment: Mapping[str, Any]) -> "Precision":
        """From the decision of the checkpoint, whose file is named after the case."""
        case = name.removeprefix("first_passage_").rpartition("_rounds")[0]
        _, low, high = assessment["exponent"] or [math.nan] * 3
        return cls(
            case,
            assessment["runs"],
            low,
            high,
            assessment["exponent_width"],
            assessment["reason_to_stop"],
        )


class RunTime(NamedTuple):
    """All jobs of one rule together; `peak_memory` in MB, nan where the jobs were too short."""

    rule: str
    jobs: int
    seconds: float
    peak_memory: float


class OutlierCount(NamedTuple):
    """Estimates of the number of outliers for one seed; `above` maps fractions of h₁ to counts."""

    seed: int
    curvature: float
    effective_dimension: float
    gap_dimension: int
    above: dict[float, int]


def render(
    template: str | Path,
    *,
    claims: Sequence[Claim],
    figures: Sequence[Figure],
    sizes: Sequence[Size],
    passage_counts: Sequence[PassageCount],
    outcomes: Sequence[Mapping[str, str]],
    precisions: Sequence[Precision],
    outliers: Sequence[OutlierCount],
    minimum: Mapping[str, float],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    run_times: Sequence[RunTime],
) -> str:
    """The page. `minimum` has the `seed`, `curvature` and `effective_dimension` of Fig. 3(c).

    Raises jinja2's `UndefinedError` if the template asks for anything else.
    """
    template = Path(template)
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(template.name).render(
        groups=group_claims(claims),
        counts=summary(claims),
        figures=figures,
        sizes=sizes,
        passage_counts=passage_counts,
        outcomes=outcomes,
        precisions=precisions,
        outliers=outliers,
        minimum=minimum,
        level=f"{100 * config['fits']['confidence']:g}\N{NO-BREAK SPACE}%",
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        versions=versions,
        run_times=run_times,
    )


def number(value: float) -> str:
    """Four significant digits with a true minus; a dash where there is no number."""
    if math.isnan(value):
        return "–"
    return f"{value:.4g}".replace("inf", "∞").replace("-", "−")


def group_claims(claims: Sequence[Claim]) -> list[ClaimGroup]:
    """Claims whose ids differ only in the bracket, together and in order."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.id.partition("[")[0], []).append(claim)
    return [
        ClaimGroup(stem, members, summary(members), len(members) <= _OPEN_UP_TO)
        for stem, members in groups.items()
    ]


def embed_figures(images: Mapping[str, bytes], captions: Mapping[str, str]) -> list[Figure]:
    """Those of the paper first, by their number there, then the others by name.

    Raises `SgdEscapeError` if an image is no PNG, is damaged or has no caption.
    """
    figures = []
    for name in sorted(images, key=lambda name: (not _paper_number(name), name)):
        _check_png(name, images[name])
        caption = " ".join(captions.get(name, "").split())
        if not caption:
            raise SgdEscapeError(
                f"the figure {name} needs a caption, but workflow/report/{name}.rst is missing or "
                "empty. Write one paragraph there"
            )
        image = "data:image/png;base64," + base64.b64encode(images[name]).decode()
        figures.append(Figure(name, _label(name), caption, image))
    return figures


def _check_png(name: str, content: bytes) -> None:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
        # Pillow does not look at the end marker.
        if not content.endswith(_PNG_END):
            raise ValueError("it does not end like one")
    # Pillow reports a damaged chunk as SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SgdEscapeError(
            f"figures/{name}.png is no whole PNG image: {error}. {RUN_AGAIN}"
        ) from error


def _paper_number(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"fig(\d+)([a-z]?)", name)


def _label(name: str) -> str:
    found = _paper_number(name)
    if not found:
        return f"Additional figure: {name.replace('_', ' ')}"
    figure, part = found.groups()
    return f"Figure {figure}({part})" if part else f"Figure {figure}"


def compare_sizes(config: Mapping[str, Any], paper: Mapping[str, Any]) -> list[Size]:
    """Every size that the paper states beside the study's."""
    ours = flatten(config)
    return [Size(key, value, ours.get(key)) for key, value in flatten(paper).items()]


def count_passages(study: str, fit: xr.Dataset) -> list[PassageCount]:
    """The runs of every case of a fit file, at the highest of its thresholds."""
    counts = xr.Dataset(
        {
            "runs": fit["runs"],
            "passed": fit["events"].isel(threshold=-1),
            "censored": fit["censored"].isel(threshold=-1),
            "diverged": fit["diverged"],
        }
    )
    return [
        PassageCount(study, label, *(int(point[name]) for name in PassageCount._fields[2:]))
        for label, point in cases(counts.reset_coords(drop=True))
    ]


def count_outliers(hessian: xr.Dataset) -> OutlierCount:
    """The estimators that a Hessian file holds."""
    fractions, counts = hessian["fraction"].values, hessian["threshold_dimension"].values
    return OutlierCount(
        int(hessian.attrs["seed"]),
        float(hessian["eigenvalue"][0]),
        float(hessian["effective_dimension"]),
        int(hessian["gap_dimension"]),
        {float(f): int(n) for f, n in zip(fractions, counts, strict=True)},
    )


def collect_run_times(folder: str | Path) -> list[RunTime]:
    """Snakemake's benchmark files RULE.tsv and RULE/JOB.tsv below a folder, summed by rule.

    Raises `SgdEscapeError` if one of them is damaged.
    """
    folder = Path(folder)
    jobs: dict[str, list[RunTime]] = {}
    # A job that is just ending, such as a figure beside this one, has made its file but no line.
    for path in sorted(path for path in folder.rglob("*.tsv") if path.stat().st_size):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        jobs.setdefault(rule, []).append(_run_time(rule, path))
    return [_summed(rule, parts) for rule, parts in sorted(jobs.items())]


def _run_time(rule: str, path: Path) -> RunTime:
    try:
        rows = list(csv.DictReader(path.read_text("utf-8").splitlines(), delimiter="\t"))
        if not rows:
            raise ValueError("it has no line of numbers")
        # Snakemake writes "-" or "NA" for a job that ended before its first look at the memory.
        memory = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("-", "NA")]
        seconds = math.fsum(float(row["s"]) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise SgdEscapeError(f"{path} is damaged: {error}. {RUN_AGAIN}") from error
    return RunTime(rule, len(rows), seconds, max(memory, default=math.nan))


def _summed(rule: str, parts: Sequence[RunTime]) -> RunTime:
    memory = [part.peak_memory for part in parts if not math.isnan(part.peak_memory)]
    return RunTime(
        rule,
        sum(part.jobs for part in parts),
        math.fsum(part.seconds for part in parts),
        max(memory, default=math.nan),
    )
