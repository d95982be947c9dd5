"""The example page scores as Python does, and asks for nothing but its own files."""

import functools
import http.server
import json
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from exported import PATCHNET, SIZE, fit, photographs, wanted
from PIL import Image

from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.export import export_detector

PAGE = Path(__file__).parents[1] / "examples/score_in_a_browser.html"
RUNTIME = Path(os.environ.get("ONNXRUNTIME_WEB", "node_modules/onnxruntime-web/dist"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.skipif(not RUNTIME.is_dir(), reason="npm install onnxruntime-web, or its dist folder in ONNXRUNTIME_WEB")
def test_the_page_says_what_the_library_says_and_sends_nothing(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="pip install 'fastcutpaste[export]'")
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    site = tmp_path / "site"
    site.mkdir()
    for path in (PAGE, RUNTIME / "ort.wasm.min.js", *RUNTIME.glob("ort-wasm-simd-threaded.[mw]*")):
        shutil.copy(path, site)
    detector, images = fit(PATCHNET, DetectorConfig(SIZE, 24, 8)), photographs(1, 97, 161)
    export_detector(detector, site / "detector.onnx")
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(tmp_path / "part.png")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = Browser(tmp_path / "profile")
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        browser.open(address + PAGE.name)
        browser.run("loaded_ = new Promise(function look(done) { said.textContent.startsWith('Loading') ? "
                    "setTimeout(look, 50, done) : done() })")  # fmt: skip
        page = browser.send("DOM.getDocument")["root"]["nodeId"]
        chosen = browser.send("DOM.querySelector", nodeId=page, selector="#file")["nodeId"]
        browser.send("DOM.setFileInputFiles", nodeId=chosen, files=[str(tmp_path / "part.png")])
        text = browser.run("new Promise(function look(done) { /score|Not|No /.test(said.textContent) ? "
                           "done(said.textContent) : setTimeout(look, 50, done) })")  # fmt: skip
        browser.resize(1000, 700)
        browser.picture(tmp_path / "page.png")
        heat = json.loads(browser.run("JSON.stringify(Array.from(document.getElementById('heat').getContext('2d')"
                                      ".getImageData(0, 0, 161, 97).data))"))  # fmt: skip
        assert all(asked.startswith((address, "blob:")) for asked in browser.requests())
    finally:
        browser.close()
        server.shutdown()
    maps, scores, defective = wanted(detector, images)
    found = re.fullmatch(r"(Defective|Normal): score ([\d.]+)", text)
    assert found is not None, text
    assert found[1] == ("Defective" if defective[0] else "Normal")
    assert float(found[2]) == pytest.approx(float(scores[0]), rel=1e-4)
    shown = np.array(heat).reshape(97, 161, 4)[..., :3].sum(2)  # rises with the map
    share = ((maps[0] - maps.min()) / (scores[0] - maps.min())).clamp(0, 1).numpy()
    assert np.abs(shown - 765 * share).max() <= 6
