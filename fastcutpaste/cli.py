"""The command line: text for people on stderr, one JSON object as the last line on stdout."""

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import click
import torch

import fastcutpaste
from fastcutpaste.baselines import Confetti, Cutout, Scar
from fastcutpaste.data import find_test_images, find_training_images, load_images, load_masks
from fastcutpaste.demo import TEXTURES, make_demo, write_demo
from fastcutpaste.detector import Detector, DetectorConfig, hold_out
from fastcutpaste.foreground import OnForeground
from fastcutpaste.model import Network, NetworkConfig
from fastcutpaste.report import write_heat_maps, write_preview
from fastcutpaste.runs import (
    DETECTOR_FILE,
    claim,
    draw_examples,
    evaluate_scores,
    heat_range,
    load_run,
    people,
    provenance_of,
    score_images,
    show_progress,
    train_network,
    write_evaluation,
)
from fastcutpaste.train import PRESETS, TrainConfig
from fastcutpaste.transforms import CutPaste, CutPasteScar


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(fastcutpaste.__version__, package_name="fastcutpaste")
def app() -> None:
    """Find defects in images after training on normal images alone, with synthetic CutPaste defects.

    Start with `fastcutpaste demo`: it downloads nothing and takes about three minutes on two CPU cores. Then `train` on
    your own normal images, `evaluate` where you have labelled ones, and `predict` on new ones. Each command ends with
    one JSON object on stdout; everything else goes to stderr.
    """


SEED = click.option("--seed", default=0, show_default=True, help="Of weights, data order and augmentation.")
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")


@app.command()
@click.option("--texture", type=click.Choice(list(TEXTURES)), default="brick", show_default=True)
@SEED
@click.option("--out", type=click.Path(path_type=Path), default=Path("fastcutpaste-demo"), show_default=True)
@click.option("--steps", default=300, show_default=True, help="Updates of the network.")
@DEVICE
def demo(texture: str, seed: int, out: Path, steps: int, device: str) -> None:
    """Train, score and draw heat maps on a real texture with planted defects, in about three minutes.

    The photograph ships with scikit-image. The images are left in OUT/data as an MVTec folder, so that `train`,
    `evaluate` and `predict` can be tried on it.
    """
    target = _device(device)
    claim(out, overwrite=True)
    images = make_demo(texture, seed=seed)
    shutil.rmtree(out / "data", ignore_errors=True)  # an earlier demo's, of another seed perhaps
    write_demo(images, out / "data")
    people.print(f"{len(images.train)} normal crops of {texture} to learn from, {len(images.kinds)} crops to test on")
    size = (images.train.shape[-2], images.train.shape[-1])
    config = TrainConfig(steps=steps, batch=24, crop=64, seed=seed)
    scoring = DetectorConfig(size, patch=64, stride=8, fit_patches=10_000, chunk=128)
    normal, calibration = images.train.to(target), images.calibration.to(target)

    def measure(detector: Detector) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        maps = detector.localize(images.test, show_progress)
        scores = maps.amax((-2, -1))
        return evaluate_scores(scores, images.kinds, detector.threshold, list(maps), list(images.masks)), maps, scores

    torch.manual_seed(seed)
    network = Network().to(target)
    people.print("an untrained network first, to compare with")
    untrained, _, _ = measure(Detector(network, scoring).fit(normal, calibration, show_progress))
    train_network(network, normal, config, out)
    detector = Detector(network, scoring, provenance=provenance_of(normal, config, texture))
    detector.fit(normal, calibration, show_progress).save(out / DETECTOR_FILE)
    trained, maps, scores = measure(detector)
    picture = out / "heatmaps.png"
    draw_examples(detector, images.test.__getitem__, list(maps), images.kinds, scores, picture, list(images.masks))
    for name in ("image_auroc", "pixel_auroc"):
        people.print(f"{name.replace('_', ' ')}  {trained[name]:.3f}  (untrained network {untrained[name]:.3f})")
    people.print(f"look at {picture}")
    _finish({**trained, "untrained": untrained, "texture": texture, "seed": seed, "heat_maps": str(picture)})


@app.command(name="train")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make for the detector.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="fast", show_default=True,
              help="paper: 65,536 updates; fast: half of them, as good; quick: minutes on a CPU.")  # fmt: skip
@click.option("--size", default="256", show_default=True, help="Images are resized to this: SIDE or HEIGHTxWIDTH, px.")
@click.option("--crop", default=64, show_default=True,
              help="Side of the patches it learns from and scores, px; 0: whole images, no heat maps.")  # fmt: skip
@click.option("--stride", type=int, help="Pixels between scored patches.  [default: 4; quick: 16]")
@click.option("--steps", type=int, help="Updates, instead of the preset's.")
@click.option("--batch", type=int, help="Normal images a step, instead of the preset's; the task triples them.")
@click.option("--backbone", default="resnet18", show_default=True, help="Any torchvision or timm classification model.")
@click.option("--weights", help="'imagenet', or a local file of the backbone's weights.  [default: from scratch]")
@click.option("--stage", help="Node of the backbone whose output is the features, such as layer3.")
@click.option("--density", type=click.Choice(["gaussian", "kernel"]), default="gaussian", show_default=True)
@click.option("--fpr", default=0.05, show_default=True, help="Share of normal images that may be called defective.")
@click.option(
    "--held-out",
    default=0.2,
    show_default=True,
    help="Share of the images, the last ones, kept out of training to set the threshold on.",
)
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in OUT.")
@SEED
@DEVICE
def train_command(
    data: Path, out: Path, preset: str, size: str, crop: int, stride: int | None, steps: int | None, batch: int | None,
    backbone: str, weights: str | None, stage: str | None, density: Any, fpr: float,
    held_out: float, precision: Any, overwrite: bool,
    seed: int, device: str,
) -> None:  # fmt: skip
    """Train a detector on the normal images in DATA: an MVTec category (train/good), or a plain folder of images."""
    target = _device(device)
    base = PRESETS[preset]
    config = TrainConfig(
        steps=base.steps if steps is None else steps,
        batch=base.batch if batch is None else batch,
        crop=crop or None,
        precision=precision,
        seed=seed,
    )
    stride = (16 if preset == "quick" else 4) if stride is None else stride
    scoring = DetectorConfig(_size(size), patch=crop or None, stride=stride, density=density, false_positive_rate=fpr)
    torch.manual_seed(seed)
    network = Network(NetworkConfig(backbone, stage=stage), weights).to(target)
    found = find_training_images(data)
    claim(out, overwrite)
    images = load_images(found.paths, scoring.size, progress=True).pixels.to(target)
    people.print(f"{len(images)} normal images, {config.steps} updates of 3 × {config.batch} images on {target}")
    normal, calibration = hold_out(images, held_out)
    people.print(f"{len(calibration)} of them are held out of training, to set the threshold on")
    last = train_network(network, normal, config, out)
    detector = Detector(network, scoring, provenance=provenance_of(normal, config, data.name))
    detector.fit(normal, calibration, show_progress).save(out / DETECTOR_FILE)
    _finish({
        "detector": str(out / DETECTOR_FILE), "images": len(images), "steps": config.steps, "loss": last.loss,
        "accuracy": last.accuracy, "threshold": detector.threshold,
    })  # fmt: skip


@app.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for scores and heat maps.  [default: RUN/evaluation]"
)
@DEVICE
def evaluate(run: Path, data: Path, out: Path | None, device: str) -> None:
    """Measure the detector in RUN on labelled images: DATA/test/<kind>, with masks in DATA/ground_truth."""
    detector = load_run(run, _device(device))
    found = find_test_images(data)
    if None in found.kinds:
        raise ValueError(f"evaluate: labelled images in {data / 'test'}/<kind> required, got a folder of images; "
                         "use predict for these")  # fmt: skip
    images, sizes = load_images(found.paths, detector.config.size, progress=True)
    masks = load_masks(found, sizes) if found.has_masks and detector.config.patch is not None else None
    scores, maps = score_images(detector, images, sizes)
    results = evaluate_scores(scores, found.kinds, detector.threshold, maps, masks)
    out = out or (run if run.is_dir() else run.parent) / "evaluation"
    results |= write_evaluation(out, detector, found, scores, maps, masks, results)
    for name in ("image_auroc", "pixel_auroc", "pro_auc", "false_positive_rate", "detection_rate"):
        if name in results:
            people.print(f"{name.replace('_', ' '):>20}  {results[name]:.3f}")
    _finish(results)


@app.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--heatmaps", type=click.Path(path_type=Path), help="Folder for one overlay picture per image.")
@DEVICE
def predict(run: Path, images: tuple[Path, ...], heatmaps: Path | None, device: str) -> None:
    """Score IMAGES (files or folders) with the detector in RUN and say which are defective."""
    detector = load_run(run, _device(device))
    if heatmaps is not None and detector.config.patch is None:
        raise ValueError("predict --heatmaps: a detector trained on patches required, got one of whole images")
    paths = [path for argument in images for path in find_test_images(argument).paths]
    pixels, sizes = load_images(paths, detector.config.size, progress=len(paths) > 8)
    scores, maps = score_images(detector, pixels, sizes, progress=len(paths) > 8)
    results: list[dict[str, Any]] = []
    for i, path in enumerate(paths):
        score = float(scores[i])
        results.append({"image": str(path), "score": score, "defective": score > detector.threshold})
        if heatmaps is not None and maps is not None:
            picture = heatmaps / f"{i:04d}_{path.stem}.png"
            original = load_images([path], sizes[i]).pixels[0]
            low, high = heat_range(detector)
            write_heat_maps([original], [maps[i]], picture, low=low, high=high, titles=[f"{path.name}  {score:.1f}"])
            results[-1]["heat_map"] = str(picture)
        verdict = "DEFECTIVE" if score > detector.threshold else "normal"
        people.print(f"{verdict:>9}  {score:8.2f}  {path}", markup=False)
    _finish({"threshold": detector.threshold, "results": results})


@app.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("preview.png"), show_default=True)
@click.option("--count", default=2, show_default=True, help="Images shown with each transform.")
@click.option("--size", default="256", show_default=True, help="SIDE or HEIGHTxWIDTH, px.")
@SEED
def preview(data: Path, out: Path, count: int, size: str, seed: int) -> None:
    """Draw image, result, mask and difference of every transform on the images in DATA."""
    found = find_training_images(data)
    images = load_images(found.paths[: max(1, count)], _size(size)).pixels
    transforms = {
        "CutPaste": CutPaste(),
        "CutPaste, on the object": OnForeground(CutPaste()),
        "CutPaste, other image": CutPaste(source="other"),
        "CutPasteScar": CutPasteScar(),
        "CutPasteScar, on the object": OnForeground(CutPasteScar()),
        "Cutout": Cutout(),
        "Cutout, random color": Cutout("random"),
        "Scar, random color": Scar(),
        "Confetti": Confetti(),
    }
    write_preview(images, transforms, out, seed)
    people.print(f"look at {out}")
    _finish({"preview": str(out), "images": len(images), "transforms": list(transforms)})


def main() -> None:
    """Run the command line; a user's mistake ends in one line on stderr and an exit status that is not 0."""
    warnings.showwarning = lambda message, *_args, **_kwargs: people.print(f"note: {message}")
    try:
        app.main(standalone_mode=False, prog_name="fastcutpaste")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True) if error.ctx else None
        sys.exit(2)
    except click.ClickException as error:
        sys.exit(_complain(error.format_message(), 2))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_complain("interrupted", 130))
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        sys.exit(_complain(str(error), 1))
    except torch.OutOfMemoryError as error:
        sys.exit(_complain(f"out of memory, try a smaller --batch or --size: {error}", 1))


def _complain(message: str, status: int) -> int:
    people.print(f"error: {' '.join(message.split())}", markup=False)
    return status


def _finish(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not name.startswith("cuda"):
        raise ValueError(f"--device: auto, cpu, cuda or cuda:N required, got {name!r}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: a CUDA GPU that torch sees required, got none")
    return torch.device(name)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--size: SIDE or HEIGHTxWIDTH in pixels required, got {text!r}")
    return int(parts[0]), int(parts[-1])
