"""Locales: whatever the language of the machine, files are written in UTF-8 and names stay those on the disk."""

import ast
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL, write_category

ROOT = Path(__file__).parents[2]
NAMES = ["나사.png", os.fsdecode(b"\xff\xfe screw.png")]  # the second is no UTF-8
COMMANDS = "import sys\nfrom fastcutpaste.cli import main\nfor part in sys.argv[1].split('|'):\n" \
           "    sys.argv = ['fastcutpaste', *part.split(';')]\n    main()"  # fmt: skip


def opens_text_without_encoding(call: ast.Call) -> bool:
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in ("read_text", "write_text")
    mode = call.args[1].value if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) else "r"
    return isinstance(call.func, ast.Name) and call.func.id == "open" and "b" not in str(mode)


def test_every_text_file_is_opened_with_its_encoding() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ("fastcutpaste", "benchmarks", "examples")
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_text_without_encoding(node)
    ]
    assert found == []


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text are of Linux")
@pytest.mark.parametrize("mode", ["0", "1"])
def test_names_in_any_script_come_through_a_machine_that_knows_ascii_alone(tmp_path: Path, mode: str) -> None:
    data, run = write_category(tmp_path / "자료"), tmp_path / "실행"
    for i, name in enumerate(NAMES):
        os.replace(data / f"train/good/{i}.png", data / "train/good" / name)
        os.replace(data / f"test/good/{i}.png", data / "test/good" / name)
    commands = (("train", data, "--out", run, "--device", "cpu", *SMALL), ("evaluate", run, data, "--device", "cpu"),
                ("predict", run, data / "test/good", "--heatmaps", tmp_path / "열", "--report", tmp_path / "보고.html",
                 "--device", "cpu"))  # fmt: skip
    told = "|".join(";".join(map(str, command)) for command in commands)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": mode, "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", COMMANDS, told], env=environment, capture_output=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")[-2000:]
    with open(run / "evaluation/scores.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        written = [row["image"] for row in csv.DictReader(file)]
    assert {str(data / "test/good" / name) for name in NAMES} < set(written)
    last = json.loads(ended.stdout.splitlines()[-1])
    assert len(last["results"]) == len(os.listdir(tmp_path / "열")) == 2
    assert (tmp_path / "보고.html").is_file()
