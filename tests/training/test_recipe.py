"""What a run is made of: other settings and other images are noticed when it is taken up again."""

from dataclasses import asdict

import pytest
import torch
from small_training import FACTS, STATE, same

from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.training.checkpoint import save_checkpoint
from fastcutpaste.training.recipe import check_facts, facts_of, fingerprint, take_up
from fastcutpaste.training.step import TrainConfig


def test_other_settings_are_refused_unless_accepted_and_other_images_always(tmp_path, capsys):
    path = tmp_path / "c.safetensors"
    assert take_up(path, FACTS) is None
    save_checkpoint(path, STATE, FACTS)
    assert same(dict(sorted(take_up(path, FACTS).items())), dict(sorted(STATE.items())))
    other = FACTS | {"settings": {"batch": 8, "crop": 3}}
    with pytest.raises(ValueError, match=r"batch: 4 before, 8 now; crop: None before, 3 now\); --accept-changes"):
        take_up(path, other)
    assert take_up(path, other, accept_changes=True) is not None
    with pytest.raises(ValueError, match=r"images of the run required, got other ones .*images: 9 before, 10 now"):
        take_up(path, FACTS | {"data": {"images": 10}}, accept_changes=True)
    assert take_up(path, FACTS | {"surroundings": {"threads": 9}}) is not None


def test_a_setting_that_an_earlier_version_did_not_know_was_as_its_default_is(tmp_path):
    path = tmp_path / "c.safetensors"
    known = {"training": asdict(TrainConfig()), "scoring": asdict(DetectorConfig()), "seeds": 1}
    early = {
        "training": {name: value for name, value in known["training"].items() if name != "source"},
        "scoring": {name: value for name, value in known["scoring"].items() if name not in ("border", "areas")},
        "seeds": 1,
    }
    save_checkpoint(path, STATE, FACTS | {"settings": early})
    assert take_up(path, FACTS | {"settings": known}) is not None
    for part, name, value, message in (
        ("training", "source", "other", r"training\.source: same before, other now"),
        ("scoring", "areas", (96,), r"scoring\.areas: \(\) before, \(96,\) now"),
    ):
        changed = known | {part: known[part] | {name: value}}
        with pytest.raises(ValueError, match=message):
            take_up(path, FACTS | {"settings": changed})


def test_a_fingerprint_tells_names_order_and_contents_apart(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i] * 9))
    first = fingerprint(paths)
    assert fingerprint(paths) == first
    assert fingerprint(paths[::-1]) != first
    assert fingerprint(paths[:2]) != first
    paths[1].write_bytes(bytes([1] * 8 + [2]))
    assert fingerprint(paths) != first
    facts = facts_of({"a": 1}, paths, {"images": "0-1"}, torch.device("cpu"), 2)
    assert facts["data"]["images"] == 3
    assert facts["surroundings"]["processes"] == 2
    textured = facts_of({"a": 1}, paths, {"images": "0-1"}, torch.device("cpu"), 2, paths[:1])
    before = {**textured, "data": {key: value for key, value in textured["data"].items() if key != "textures"}}
    assert check_facts(before, textured, False, "") == []  # of a run that did not tell yet what they held
    paths[0].write_bytes(bytes([7] * 9))
    after = facts_of({"a": 1}, paths, {"images": "0-1"}, torch.device("cpu"), 2, paths[:1])
    assert after["data"]["textures"] != textured["data"]["textures"]
