"""The C++ example compiles, and scores as Python does."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from exported import PATCHNET, RESNET, SIZE, fit, photographs, wanted
from PIL import Image

from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.export import export_detector

SOURCE = Path(__file__).parents[1] / "examples/score_with_onnxruntime.cpp"
ROOT = Path(os.environ.get("ONNXRUNTIME_ROOT", "/usr"))
HEADERS = [
    path for path in (ROOT / "include/onnxruntime", ROOT / "include") if (path / "onnxruntime_cxx_api.h").is_file()
]
COMPILER = shutil.which("c++")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the example, with the library of the Python package: its interface is that of older headers, too."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    libraries = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    missing = [
        name
        for name, found in (
            ("a C++ compiler", COMPILER),
            (
                f"onnxruntime_cxx_api.h in {ROOT}/include (libonnxruntime-dev, or its folder as ONNXRUNTIME_ROOT)",
                HEADERS,
            ),
            ("a libonnxruntime.so in Python's onnxruntime", libraries),
        )
        if not found
    ]
    if missing:
        pytest.skip(f"no {', no '.join(missing)}")
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    words = [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-isystem", HEADERS[0], SOURCE]
    words += [f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}", "-o", folder / "score"]
    subprocess.run(words, check=True)
    return folder / "score"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("channels_last", "patch"), [(False, 24), (True, None)])
def test_the_program_says_what_the_library_says(
    program: Path, channels_last: bool, patch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'fastcutpaste[export]'")
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    detector = fit(RESNET if patch is None else PATCHNET, DetectorConfig(SIZE, patch, 8))
    images = [photographs(1, *size) for size in ((97, 161), (20, 36))]
    expected = [wanted(detector, image)[-2:] for image in images]
    detector.calibrate(threshold=float(expected[0][0] + expected[1][0]) / 2)  # between the two
    export_detector(detector, tmp_path / "detector.onnx", channels_last=channels_last)
    for name, image in zip(("a.ppm", "b.ppm"), images, strict=True):
        Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(tmp_path / name)
    done = run(program, tmp_path / "detector.onnx", tmp_path / "a.ppm", tmp_path / "b.ppm")
    assert (done.returncode, done.stderr) == (0, "")
    for line, name, (score, _) in zip(done.stdout.splitlines(), ("a.ppm", "b.ppm"), expected, strict=True):
        found = re.fullmatch(r" *(defective|normal)  score (\S+)  threshold (\S+)  (.+)", line)
        assert found is not None, line
        assert float(found[2]) == pytest.approx(float(score), rel=1e-4)
        assert float(found[3]) == pytest.approx(detector.threshold, rel=1e-5)
        assert found[1] == ("defective" if score > detector.threshold else "normal")
        assert Path(found[4]).name == name


def test_the_program_says_in_a_line_what_it_cannot_read(program: Path, tmp_path: Path) -> None:
    picture = tmp_path / "part.ppm"
    picture.write_bytes(b"P6\n# by hand\n2 2\n255\n" + bytes(11))
    for words, said in (
        ((), "a graph and images required"),
        ((tmp_path / "none.onnx", picture), "File doesn't exist"),
        ((picture, picture), "Protobuf parsing failed"),
    ):
        done = run(program, *words)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.startswith("score: ")
        assert done.stderr.count("\n") == 1
    pytest.importorskip("onnxscript", reason="pip install 'fastcutpaste[export]'")
    export_detector(fit(PATCHNET, DetectorConfig(SIZE, None)), tmp_path / "detector.onnx")
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert run(program, tmp_path / "detector.onnx", picture).returncode == 0  # the comment is passed over
    for content, said in (
        (picture.read_bytes()[:-1], "a whole image required, got one cut short"),
        (picture.read_bytes().replace(b"P6", b"P5"), r"a PPM image \(P6\) of 8 bits required, got another file"),
        (picture.read_bytes().replace(b"255", b"999"), r"a PPM image \(P6\) of 8 bits required, got another file"),
    ):
        (tmp_path / "wrong.ppm").write_bytes(content)
        done = run(program, tmp_path / "detector.onnx", tmp_path / "wrong.ppm")
        assert done.returncode == 1
        assert re.fullmatch(f"score: .*wrong.ppm: {said}\n", done.stderr)
