"""Localization in equal times: ResNet-18 patch by patch and PatchNet in one pass, both trained as long, on three sets.

    python -m benchmarks.accuracy.localize                brick, the demo's
    python -m benchmarks.accuracy.localize --data DIR     and DIR/magnetic_tile and DIR/mvtec_ad_256/screw

The study "equal time" of `benchmarks.accuracy`, with its rows and its page; what is kept is passed over. The same
networks untrained are measured beside. `--pictures DIR` draws heat maps and curves of each row.
"""

import argparse
from pathlib import Path

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy.record import KEPT

FOLDERS = ("mvtec_ad_256/screw", "magnetic_tile")


def main(words: list[str] | None = None) -> None:
    """Measure brick and the folders that are there, as the command line, or the words given, ask for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accuracy.localize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of magnetic_tile and mvtec_ad_256")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, for each network")
    parser.add_argument("--pictures", type=Path, help="folder for heat maps and curves")
    parser.add_argument("--out", type=Path, default=KEPT)
    arguments = parser.parse_args(words)
    found = [arguments.data / name for name in FOLDERS if arguments.data and (arguments.data / name).is_dir()]
    settings = ["--study", "equal time", "--seeds", arguments.seeds, "--minutes", str(arguments.minutes)]
    settings += ["--out", str(arguments.out)]
    settings += ["--pictures", str(arguments.pictures)] if arguments.pictures else []
    for folders in ([], *([[str(folder)] for folder in found])):
        accuracy.main([*settings, *(["--folders", *folders] if folders else [])])
    if arguments.out == KEPT:
        accuracy.main(["--page"])


if __name__ == "__main__":
    main()
