"""fastcutpaste predict: scores, decisions and heat maps of new images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import click
import numpy as np
from PIL import Image

from fastcutpaste.cli.options import (
    DEVICE_OPTION,
    DEVICES_OPTION,
    PAGES_OPTION,
    STRICT_OPTION,
    Finite,
    finish,
    load_scorer,
    named,
    processes,
    say_unread,
)
from fastcutpaste.cli.watching import check_folders
from fastcutpaste.cli.watching import watch as watch_folders
from fastcutpaste.console import people
from fastcutpaste.files import check_writable, safe_name
from fastcutpaste.images.decode import decode
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.images.pages import all_pages
from fastcutpaste.images.readable import AT_ONCE, Unread
from fastcutpaste.images.tree import page_of
from fastcutpaste.reports.graphed import Graphed, graph_in_turn
from fastcutpaste.reports.lines import append_lines, read_lines
from fastcutpaste.reports.page import Shown
from fastcutpaste.reports.report import write_report
from fastcutpaste.reports.thumbnails import heat_range, show
from fastcutpaste.scoring.bands import HeatMap
from fastcutpaste.scoring.calibration import Calibration, Decision
from fastcutpaste.scoring.graph import GRAPH_SUFFIX, Graph
from fastcutpaste.training.shares import Alone, gathered, one_of_several, share_of

if TYPE_CHECKING:  # a graph is scored without torch
    from lightning_fabric import Fabric

    from fastcutpaste.reports.scored import Scored
    from fastcutpaste.scoring.detector import Detector
    from fastcutpaste.scoring.ensemble import Ensemble

Scorer: TypeAlias = Union["Detector", "Ensemble", Graph]
_DRAWN_SIDE = 1024  # px of the longer side of a picture at most
Told = dict[str, Any]  # what JSON says of an image: its decision and regions, or an error


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--heatmaps", type=click.Path(path_type=Path), help="Folder for one overlay picture per image.")
@click.option("--report", type=click.Path(path_type=Path), help="HTML file with all images, to be looked through.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File that gets each image's result as it comes, a line of JSON each, such as results.jsonl.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the results in OUT; those images are not scored again, and have no heat map in a report.",
)
@click.option("--watch", is_flag=True, help="Score what comes into the folders IMAGES, and what is there, into OUT.")
@click.option("--settle", type=Finite(0, min_open=True), default=2.0, show_default=True,
              help="Seconds for which a file has to be unchanged to be scored by --watch.")  # fmt: skip
@PAGES_OPTION
@STRICT_OPTION
@DEVICE_OPTION
@DEVICES_OPTION
def predict(
    run: Path,
    images: tuple[Path, ...],
    heatmaps: Path | None,
    report: Path | None,
    out: Path | None,
    resume: bool,
    watch: bool,
    settle: float,
    pages: bool,
    strict: bool,
    device: str,
    devices: int,
) -> None:
    """Score IMAGES (files or folders) with the detector in RUN and say which are defective, and where.

    RUN is a run's folder, a detector's file, or a graph that `export` wrote, such as RUN/detector.onnx, which is scored
    on the CPU without torch.
    A file that cannot be read is named and passed over; the exit status is then 3. With --out the JSON at the end
    counts the results instead of holding them.

    With --watch it does not end: an image is scored when it is there completely, one line of JSON each in OUT, with
    which it goes on when started again, and a signal ends it with status 0.
    """
    if watch:
        _check_watch(images, heatmaps, report, strict or pages, devices)
    _check_names(report, out, resume or watch)
    detector, fabric = _load(run, device, devices)
    _check_drawn(detector, heatmaps)
    check_writable(*filter(None, (out, report, heatmaps and heatmaps / "0000.png")))
    if watch and out is not None:
        _watch(detector, images, heatmaps, out, settle)
        return
    paths = [path for argument in images for path in find_test_images(argument, divided=False).paths]
    paths = list(all_pages(paths)) if pages else paths
    told = _kept(out, paths, detector.calibration) if out is not None and resume else {}
    gathered([], fabric)  # nothing is added before all have read it
    shown: dict[int, Shown] = {}
    if report is not None and fabric.is_global_zero:
        told, shown = _show_kept(paths, told, detector.config.bits)
    left = [(number, path) for number, path in enumerate(paths) if number not in told]
    for some in _look_at(detector, left, heatmaps, report is not None, strict, fabric):
        if not fabric.is_global_zero:
            continue
        if out is not None:
            append_lines(out, [result for _, result, _ in some])
        for number, result, one_shown in some:
            _say(result)
            told[number] = result if out is None or "error" in result else {}  # a night's regions are many
            if one_shown is not None:
                shown[number] = one_shown
    if not fabric.is_global_zero:
        return
    unread = [Unread(paths[number], one["error"]) for number, one in sorted(told.items()) if "error" in one]
    outcome: Told = {**detector.calibration.summary, "unread": named(unread)}
    if out is None:
        outcome["results"] = [one for _, one in sorted(told.items())]
    else:
        outcome |= {"out": str(out), "images": len(told)}
    if report is not None:
        in_order = [one for _, one in sorted(shown.items())]
        write_report(report, detector, "Prediction by a detector", in_order, unread=unread)
        outcome["report"] = str(report)
        people.print(f"look at {report}")
    finish(outcome, say_unread(unread, len(paths)))


def _check_names(report: Path | None, out: Path | None, resume: bool) -> None:
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"predict --report: an HTML file's name required, such as report.html, got {report}")
    if resume and out is None:
        raise ValueError("--resume, --watch: with --out required, the file to go on with, got none")
    if out is not None and (out.is_dir() or (not resume and out.exists() and out.stat().st_size)):
        raise ValueError(f"--out: a new file required, got {out}, which is there; --resume goes on with its results")


def _check_watch(folders: Sequence[Path], heatmaps: Path | None, report: Path | None, ends: bool, devices: int) -> None:
    if report is not None or ends or devices != 1 or one_of_several():
        raise ValueError("--watch: one process, without --report, --strict and --pages, required")
    check_folders(folders, heatmaps)


def _watch(detector: Scorer, folders: Sequence[Path], heatmaps: Path | None, out: Path, settle: float) -> None:
    """Score what comes, until a signal ends it."""
    lines = read_lines(out)
    _check_of_detector(out, lines, detector.calibration)

    def score(numbered: Sequence[tuple[int, Path]]) -> Iterator[list[tuple[int, Told]]]:
        for some in _look_at(detector, numbered, heatmaps, False, False, Alone()):
            yield [(number, told) for number, told, _ in some]

    count, unread = len(lines), []
    for told in watch_folders(folders, settle, out, lines, score):
        _say(told)
        count += 1
        if "error" in told:
            unread.append(Unread(Path(told["image"]), told["error"]))
    finish({**detector.calibration.summary, "unread": named(unread), "out": str(out), "images": count})


def _load(run: Path, device: str, devices: int) -> tuple[Scorer, "Fabric | Alone"]:
    """Load what scores, and start the processes it scores in."""
    if run.suffix.lower() != GRAPH_SUFFIX:
        fabric = processes(device, devices)
        return load_scorer(run, fabric.device), fabric
    if device not in ("auto", "cpu") or devices != 1:
        raise ValueError(f"{run}: --device cpu and --devices 1 required for a graph, got {device} and {devices}")
    return Graph(run), Alone()


def _check_drawn(scorer: Scorer, heatmaps: Path | None) -> None:
    if heatmaps is None:
        return
    has_maps = scorer.has_maps if isinstance(scorer, Graph) else scorer.config.patch is not None
    if not has_maps:
        raise ValueError("predict --heatmaps: a detector trained on patches required, got one of whole images")
    if find_spec("matplotlib") is None:
        raise ValueError("predict --heatmaps: matplotlib required, got none; --report draws heat maps without it")


def _in_turn(scorer: Scorer, paths: Sequence[Path], strict: bool) -> Iterator[Sequence["Scored | Graphed | Unread"]]:
    if isinstance(scorer, Graph):
        return graph_in_turn(scorer, paths, strict)
    from fastcutpaste.reports.scored import score_in_turn

    return score_in_turn(scorer, paths, strict)


def _look_at(
    detector: Scorer,
    left: Sequence[tuple[int, Path]],
    heatmaps: Path | None,
    wants_page: bool,
    strict: bool,
    fabric: "Fabric | Alone",
) -> Iterator[list[tuple[int, Told, Shown | None]]]:
    """Score numbered files, and give what is told and shown of a few at a time, of all processes together."""
    mine = share_of(left, fabric)
    numbers = iter(number for number, _ in mine)
    batches = _in_turn(detector, [path for _, path in mine], strict)
    at_once = AT_ONCE if isinstance(detector, Graph) or detector.config.resize else 1
    for _ in range(0, len(left), at_once * fabric.world_size):
        some = []
        for one in next(batches, []):
            number = next(numbers)
            picture = None if heatmaps is None else heatmaps / f"{number:04d}_{safe_name(_stem_of(one.path))}.png"
            some.append((number, *_look(detector, one, picture, wants_page, strict)))
        yield gathered(some, fabric)
    next(batches, None)  # says now what the files lost


def _stem_of(path: Path) -> str:
    file, page = page_of(path)
    return file.stem if page is None else f"{file.stem}_page{page}"


def _kept(out: Path, paths: Sequence[Path], calibration: Calibration) -> dict[int, Told]:
    """Read the results to go on with, by the image's number; they have to be this detector's."""
    lines = read_lines(out)
    _check_of_detector(out, lines, calibration)
    known = {line["image"]: line for line in lines}
    return {number: known[str(path)] for number, path in enumerate(paths) if str(path) in known}


def _check_of_detector(out: Path, lines: Sequence[Told], calibration: Calibration) -> None:
    for line in lines:
        if not (isinstance(line["error"], str) if "error" in line else _is_result(line, calibration)):
            raise ValueError(f"--resume: results of this detector, as it is calibrated now, required, got another's in "
                             f"{out} (first: {line['image']})")  # fmt: skip


def _is_result(line: Told, calibration: Calibration) -> bool:
    """Tell whether a line is what `_told` gives: the file may have come to hold anything."""
    score, regions = line.get("score"), line.get("regions", [])
    if not isinstance(score, float) or not math.isfinite(score) or not isinstance(regions, list):
        return False
    decided = calibration.decide([score])[0]._asdict()
    return {name: line.get(name) for name in decided} == decided and all(
        isinstance(region, dict) and {"x", "y", "width", "height"} <= region.keys() for region in regions
    )


def _look(
    detector: Scorer, one: "Scored | Graphed | Unread", picture: Path | None, wants_page: bool, strict: bool
) -> tuple[Told, Shown | None]:
    """Tell what was found in an image, draw its heat map if a picture is wanted, and make its part of the page."""
    if isinstance(one, Unread):
        return {"image": str(one.path), "error": one.error}, None
    heat: HeatMap | None = one.heat(detector)  # type: ignore[arg-type]  # each is given what has scored it
    [decision] = detector.calibration.decide([one.score])
    try:
        told = _told(detector, one, decision, heat, picture)
        details = decision.details | ({} if heat is None else {"regions": regions_told(told["regions"])})
        shown = None
        if wants_page:
            small = None if heat is None else heat.smaller(_DRAWN_SIDE)
            shown = show(one.path, None, one.score, small, heat_range=heat_range(detector), details=details,
                         bits=detector.config.bits)  # fmt: skip
    except ValueError as error:  # the file is read again for either, and may have been taken away by now
        if strict:
            raise
        return {"image": str(one.path), "error": str(error)}, None
    return told, shown


def _told(
    detector: Scorer, one: "Scored | Graphed", decision: Decision, heat: HeatMap | None, picture: Path | None
) -> Told:
    """Tell what was found in an image, and draw its heat map if a picture is wanted."""
    told: Told = {"image": str(one.path), **decision._asdict()}
    if heat is not None:  # boxes in pixels of the file
        told["regions"] = [region._asdict() for region in heat.regions(detector.threshold)]
    if heat is not None and picture is not None:
        from fastcutpaste.reports.pictures import write_heat_map  # Matplotlib takes a second

        low, high = heat_range(detector)
        title = f"{one.path.name}  {decision.score:.1f}  {decision.text}"
        small = heat.smaller(_DRAWN_SIDE)
        image, *_ = decode(one.path, (small.shape[0], small.shape[1]), detector.config.bits)
        image = image.resize(small.shape[::-1], Image.Resampling.BILINEAR).convert("RGB")
        pixels = np.asarray(image).transpose(2, 0, 1)  # (3, h, w)
        write_heat_map(pixels, small, picture, low=low, high=high, threshold=detector.threshold, title=title)
        told["heat_map"] = str(picture)
    return told


def _show_kept(
    paths: Sequence[Path], kept: Mapping[int, Told], bits: int | None
) -> tuple[dict[int, Told], dict[int, Shown]]:
    """Make the page's parts of images scored before, whose heat maps are gone; of a file that is gone too, an error."""
    told, shown = dict(kept), {}
    for number, one in kept.items():
        if "error" in one:
            continue
        details = Decision(*(one[name] for name in Decision._fields)).details
        if "regions" in one:
            details |= {"regions": regions_told(one["regions"])}
        try:
            shown[number] = show(paths[number], None, one["score"], details=details, bits=bits)
        except ValueError as error:
            told[number] = {"image": one["image"], "error": str(error)}
    return told, shown


def regions_told(regions: Sequence[Mapping[str, Any]]) -> str:
    """Tell the regions above the detector's threshold, the worst of them by its box."""
    if not regions:
        return "none above the detector's threshold"
    worst = regions[0]
    where = f"{worst['width']} × {worst['height']} px from x {worst['x']}, y {worst['y']}"
    return where if len(regions) == 1 else f"{len(regions)}, the worst {where}"


def _say(told: Told) -> None:
    if "error" in told:
        people.print(f"{'not read':>9}  {' '.join(told['error'].split())}", markup=False)
        return
    decision = Decision(*(told[name] for name in Decision._fields))
    verdict = "DEFECTIVE" if decision.defective else "normal"
    people.print(f"{verdict:>9}  {decision.score:8.2f}  {decision.text:<27}  {told['image']}", markup=False)
