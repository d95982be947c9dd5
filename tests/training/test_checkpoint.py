"""A run is never lost: checkpoints are whole or refused, saved in time, and signals heeded."""

import os
import signal
import sys
import time
from threading import Event

import pytest
import torch
from safetensors.torch import save_file
from small_training import FACTS, STATE, TASK, Tiny, draw_batches, same, settings

from fastcutpaste.training import checkpoint as checkpoint_module
from fastcutpaste.training.checkpoint import (
    Keeper,
    Stopped,
    differences,
    load_checkpoint,
    save_checkpoint,
)
from fastcutpaste.training.loop import Training, proceed

# The file


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    odd = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "c.safetensors", STATE | {"odd": odd}, FACTS)
    state, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert same(dict(sorted(state.items())), dict(sorted((STATE | {"odd": odd}).items())))
    assert facts == FACTS


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_a_cut_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE, FACTS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"c\.safetensors: a whole checkpoint required, got a damaged"):
        load_checkpoint(path)


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE, FACTS)
    whole = path.read_bytes()
    for place in range(8, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="required"):
            load_checkpoint(path)


def test_another_safetensors_file_is_refused(tmp_path):
    save_file(STATE, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="a whole checkpoint required"):
        load_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize("text", ["3", "[]", "null", "{}", '{"checksum": 1}', "[" * 100_000])
def test_a_checkpoint_that_tells_something_else_is_refused(tmp_path, text):
    save_file(STATE, tmp_path / "c.safetensors", {"fastcutpaste-checkpoint": text})
    with pytest.raises(ValueError, match=r"a (whole )?checkpoint .*required"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_a_checkpoint_of_another_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "FORMAT", 7)
    save_checkpoint(tmp_path / "c.safetensors", STATE, FACTS)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"of format {checkpoint_module.FORMAT} required, got 7"):
        load_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of file size")
def test_a_write_that_fails_half_way_leaves_the_checkpoint_before_whole(tmp_path):
    """As on a full disk; here the system refuses what is beyond a limit of file size."""
    import resource

    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE, FACTS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"c\.safetensors: "):
            save_checkpoint(path, {"network.a": torch.zeros(1 << 20)}, FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]
    assert same(dict(sorted(load_checkpoint(path)[0].items())), dict(sorted(STATE.items())))


# Settings and data


def test_each_difference_is_named_however_deep():
    before = {"training": {"batch": 4, "crop": None, "size": (1, 2)}, "gone": 1}
    now = {"training": {"batch": 8, "crop": None, "size": [1, 2]}, "new": "x"}
    assert differences(before, now) == [
        "training.batch: 4 before, 8 now", "gone: 1 before, None now", "new: None before, x now"
    ]  # fmt: skip
    assert differences(before, before) == []


# When it is saved


def saved_steps(keeper, steps=10, window=4):
    """Train and give the steps at which the checkpoint was another."""
    seen = []

    def look(training):
        keeper(training)
        keeper.wait()
        if keeper.path.is_file():
            step = int(load_checkpoint(keeper.path)[0]["step"][0])
            seen.append(step) if step not in seen else None

    proceed(Training(Tiny(), TASK, settings(steps), window=window), draw_batches(), on_step=look)
    return seen


def test_it_is_saved_every_so_many_steps_and_at_the_end(tmp_path):
    assert saved_steps(Keeper(tmp_path / "c.safetensors", FACTS, steps=3)) == [3, 6, 9, 10]
    assert saved_steps(Keeper(tmp_path / "d.safetensors", FACTS)) == [10]


def test_it_is_saved_every_so_many_minutes(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 30))  # half a minute a look
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: next(clock))
    steps = saved_steps(Keeper(tmp_path / "c.safetensors", FACTS, minutes=2))
    assert steps[0] == 4
    assert len(steps) >= 3


def test_training_goes_on_while_a_checkpoint_is_written_and_what_is_written_is_of_its_step(tmp_path, monkeypatch):
    may_write, seen = Event(), []

    def slow(*arguments):
        assert may_write.wait(30)
        save_checkpoint(*arguments)

    monkeypatch.setattr(checkpoint_module, "save_checkpoint", slow)
    keeper, training = Keeper(tmp_path / "c.safetensors", FACTS, steps=4), Training(Tiny(), TASK, settings(9))

    def look(training):
        keeper(training)
        if training.step == 4:
            seen.append({name: value.clone() for name, value in training.state().items()})
        if training.step == 7:
            assert not keeper.path.exists()
            may_write.set()
            keeper.wait()
            assert same(load_checkpoint(keeper.path)[0], dict(sorted(seen[0].items())))

    proceed(training, draw_batches(), on_step=look)
    assert seen
    assert load_checkpoint(keeper.path)[0]["step"][0] == 9  # the last one is waited for


def test_what_fails_in_the_background_is_raised_at_the_next_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint_module, "save_checkpoint", full)
    keeper, reached = Keeper(tmp_path / "c.safetensors", FACTS, steps=3), []

    def look(training):
        reached.append(training.step)
        keeper(training)
        while keeper._writing is not None and not keeper._writing.done():
            time.sleep(0.001)

    with pytest.raises(OSError, match="no space left"):
        proceed(Training(Tiny(), TASK, settings(9)), draw_batches(), on_step=look)
    assert reached == [1, 2, 3, 4]
    keeper = Keeper(tmp_path / "c.safetensors", FACTS)
    with pytest.raises(OSError, match="no space left"):
        proceed(Training(Tiny(), TASK, settings(2)), draw_batches(), on_step=keeper)


def test_limits_out_of_bounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"above 0 minutes and at least 1 step .*got 0 and None"):
        Keeper(tmp_path, FACTS, minutes=0)
    with pytest.raises(ValueError, match=r"got 1\.0 and 0"):
        Keeper(tmp_path, FACTS, steps=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_after_the_step_and_leaves(tmp_path, number, capfd):
    keeper = Keeper(tmp_path / "c.safetensors", FACTS)
    training = Training(Tiny(), TASK, settings(9))
    before = signal.getsignal(number)

    def interrupt(training):
        if training.step == 3:
            os.kill(os.getpid(), number)
        keeper(training)

    with pytest.raises(Stopped, match=f"stopped by {number.name} at step 3") as stopped, keeper.heeding():
        proceed(training, draw_batches(), on_step=interrupt)
    assert stopped.value.number == number
    assert signal.getsignal(number) == before
    assert load_checkpoint(keeper.path)[0]["step"][0] == 3
    assert f"{number.name}: stops after this step, and saves; once more in 3 s or later" in capfd.readouterr().err


@pytest.mark.parametrize("then", [signal.SIGTERM, signal.SIGINT])
def test_signals_at_nearly_the_same_time_are_one_wish(tmp_path, then, capfd):
    keeper = Keeper(tmp_path / "c.safetensors", FACTS)

    def interrupt(training):
        if training.step == 3:
            for number in (signal.SIGTERM, then, signal.SIGTERM):
                os.kill(os.getpid(), number)
                time.sleep(0.02)
        keeper(training)

    with pytest.raises(Stopped, match="stopped by SIGTERM at step 3"), keeper.heeding():
        proceed(Training(Tiny(), TASK, settings(9)), draw_batches(), on_step=interrupt)
    assert load_checkpoint(keeper.path)[0]["step"][0] == 3
    assert capfd.readouterr().err.count("stops after this step") == 1


def test_a_signal_that_comes_again_later_is_obeyed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "_PATIENCE", 0.05)
    keeper = Keeper(tmp_path / "c.safetensors", FACTS)
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    before = signal.getsignal(signal.SIGINT)

    def insist():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), keeper.heeding():
        insist()
    assert signal.signal(signal.SIGINT, found) == before
    assert not keeper.path.exists()


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(tmp_path):
    keeper = Keeper(tmp_path / "c.safetensors", FACTS, steps=2)
    good = [next(draw_batches()) for _ in range(5)]
    bad = [torch.full((8, 3, 24, 24), float("nan"))] * 4
    with pytest.raises(FloatingPointError, match="at step 6"):
        proceed(Training(Tiny(), TASK, settings(9)), iter(good + bad), on_step=keeper)
    keeper.wait()
    state, _ = load_checkpoint(keeper.path)
    assert state["step"][0] == 4
    assert all(value.isfinite().all() for value in state.values())
