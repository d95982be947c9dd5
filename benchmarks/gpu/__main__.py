"""Everything a GPU has to show, in one command: rights first, then ceilings, op, training step, scorer, density.

    python -m benchmarks.gpu              rows, figures and a profile into benchmarks/results; a short table last
    python -m benchmarks.gpu --rehearse   the same code on this CPU with tiny sizes: it shows that the command works

Needs no network and takes under eight minutes on one H100 or H200, by its own limits: what the time does not suffice
for, and what is not installed, is skipped and said so. Results are compared before anything is timed; where they are
wrong, or a test fails, the command ends with status 1. Files written: gpu.csv (rows), gpu.json (figures), and
gpu-profile.txt (where the time of the op and of the step goes).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu import family, learn, op, pipeline
from benchmarks.gpu.device import copy_ceiling, fill_ceiling, product_ceiling
from benchmarks.gpu.figures import Figures, Plan
from benchmarks.kept import keep
from benchmarks.rows import RESULTS, commit

ROOT = Path(__file__).parents[2]


def run_tests(plan: Plan, figures: Figures) -> None:
    """Run the tests that need a GPU; only collect them where there is none."""
    marked = [
        path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += map(str, marked)  # without the project's own options: what they name may not be installed here
    if plan.rehearsal:
        command += ["--collect-only"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=240, env=environment)
    last = (ran.stdout.strip() or ran.stderr.strip() or "no output").splitlines()[-1]
    if ran.returncode != 0:
        print(ran.stdout[-3000:], ran.stderr[-1000:], flush=True)
        raise AssertionError(f"tests: {last}")
    figures.add("tests on the GPU", last)


def measure_ceilings(plan: Plan, figures: Figures) -> None:
    """Measure what the card copies and multiplies at best."""
    figures.copy = copy_ceiling(plan.device, plan.copy_megabytes, plan.seconds)
    figures.product = product_ceiling(plan.device, plan.product_side, plan.seconds)
    figures.add("device copy, read and written", figures.copy / 1e12, "TB/s")
    figures.fill = fill_ceiling(plan.device, plan.copy_megabytes, plan.seconds)
    figures.add("device fill, written", figures.fill / 1e12, "TB/s")
    figures.add("matrix product, bf16", figures.product / 1e12, "TFLOP/s")


SECTIONS: dict[str, Callable[[Plan, Figures], None]] = {
    "tests": run_tests,
    "ceilings": measure_ceilings,
    "op": op.measure_op,
    "rivals": op.measure_rivals,
    "family": family.measure_family,
    "step": learn.measure_step,
    "trainer": learn.measure_trainer,
    "scorer": learn.measure_scorer,
    "density": learn.measure_density,
    "pipeline": pipeline.measure_pipeline,
}


def run(plan: Plan, out: Path, only: list[str]) -> int:
    """Run the sections, keep what they find, and give the exit status."""
    figures, begun = Figures(), time.perf_counter()
    for name in only or SECTIONS:
        left = plan.limit - (time.perf_counter() - begun)
        if left < 0:
            figures.skip(name, f"the {plan.limit:.0f} s are over")
            continue
        print(f"{name} …", flush=True)
        start = time.perf_counter()
        try:
            SECTIONS[name](plan, figures)
        except Exception as error:
            figures.fail(name, error)
        figures.seconds[name] = round(time.perf_counter() - start, 1)
        write(plan, figures, out)  # so that a command cut off leaves what it has
    write(plan, figures, out)
    print(figures.table(plan))
    return int(figures.failed)


def write(plan: Plan, figures: Figures, out: Path) -> None:
    """Write rows, figures and profile into the output folder."""
    out.mkdir(parents=True, exist_ok=True)
    keep(figures.rows, out / "gpu.csv")
    about = {"device": plan.device_name, "torch": torch.__version__, "commit": commit(), "rehearsal": plan.rehearsal}
    found = {"figures": [entry._asdict() for entry in figures.entries], "skipped": figures.skipped}
    text = json.dumps(about | found | {"seconds": figures.seconds}, indent=1, ensure_ascii=False)
    (out / "gpu.json").write_text(text + "\n", encoding="utf-8")
    (out / "gpu-profile.txt").write_text("\n\n".join(figures.profiles), encoding="utf-8")


def main(words: list[str] | None = None) -> int:
    """Run what the command line, or the words given, ask for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rehearse", action="store_true", help="every path on this CPU, tiny sizes")
    parser.add_argument("--out", type=Path, help="output folder (benchmarks/results; a temporary one with --rehearse)")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=[], help="sections to run")
    arguments = parser.parse_args(words)
    if not arguments.rehearse and not torch.cuda.is_available():
        parser.error("a CUDA device required, got none; --rehearse runs on a CPU")
    if arguments.rehearse:
        torch.set_num_threads(1)  # tiny work: threads would only wait for each other
    out = arguments.out or (Path(tempfile.mkdtemp()) if arguments.rehearse else RESULTS)
    status = run(Plan.rehearsing() if arguments.rehearse else Plan(), out, arguments.only)
    print(f"written: {out}")
    return status


if __name__ == "__main__":
    sys.exit(main())
