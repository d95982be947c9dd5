"""Laws of the pretext tasks: which image is which, in which order, with which mask."""

import functools
import pickle

import pytest
import torch
from recorder import SYNCING, Ops
from small_patches import random_images, seeded
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

from fastcutpaste import (
    BaseAugmentation,
    Cutout,
    CutPaste,
    CutPaste3Way,
    CutPasteScar,
    OneOf,
    OnForeground,
    PretextTask,
    QuarterTurn,
    Scar,
    normalize,
)

TASKS = {
    "feathered": PretextTask(CutPaste(feather=4.0), CutPasteScar()),
    "three way": CutPaste3Way(),
    "binary": PretextTask(CutPaste()),
    "union": PretextTask(OneOf(CutPaste(), CutPasteScar())),
    "five": PretextTask(Cutout("mean"), Scar(), CutPaste(), CutPasteScar()),
    "rotation": PretextTask(QuarterTurn(1), QuarterTurn(2), QuarterTurn(3)),
}
tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@tasks
def test_labels_count_the_classes_one_block_after_another(task):
    batch = task.augment(random_images((4, 3, 32, 32)), seeded())
    classes = len(task.transforms) + 1
    assert task.classes == classes
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [label for label in range(classes) for _ in range(4)]
    assert batch.images.shape == (4 * classes, 3, 32, 32)
    assert batch.masks.shape == (4 * classes, 1, 32, 32)
    assert batch.masks.dtype == torch.bool


@tasks
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_class_0_is_the_input_bit_for_bit_with_an_empty_mask(task, dtype):
    images = random_images((4, 3, 32, 32), dtype)
    batch = task.augment(images, seeded())
    assert torch.equal(batch.images[:4], images)
    assert not batch.masks[:4].any()


@tasks
def test_every_class_is_its_transform_of_the_same_images_drawn_in_order(task):
    images, draws = random_images((4, 3, 32, 32)), torch.rand(4, task.numbers, generator=seeded())
    batch, taken = task.augment(images, draws=draws), 0
    for label, transform in enumerate(task.transforms, start=1):
        alone = transform.augment(images, draws=draws[:, taken : taken + transform.numbers])
        taken += transform.numbers
        assert torch.equal(batch.images[batch.labels == label], alone.images)
        assert torch.equal(batch.masks[batch.labels == label], alone.mask)


def test_masks_agree_with_the_pixels_that_changed():
    images = torch.rand(6, 3, 64, 80, generator=seeded(1), dtype=torch.float64)  # no two pixels are equal
    for task in (CutPaste3Way(), TASKS["five"]):
        batch = task.augment(images, seeded())
        repeated = images.repeat(task.classes, 1, 1, 1)  # ((k+1)·B, C, H, W)
        assert torch.equal((batch.images != repeated).any(1, keepdim=True), batch.masks)
        assert batch.masks[6:12].any()


@tasks
def test_forward_gives_the_images_and_labels_of_augment(task):
    images = random_images((4, 3, 32, 32))
    batch, (forward_images, labels) = task.augment(images, seeded()), task(images, seeded())
    assert torch.equal(forward_images, batch.images)
    assert torch.equal(labels, batch.labels)


@tasks
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_normalized_is_what_normalize_makes_of_the_images(task, memory_format, dtype):
    images = random_images((4, 3, 32, 32), dtype).contiguous(memory_format=memory_format)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    result, labels = task.normalized(images, mean, std, torch.bfloat16, seeded())
    batch = task.augment(images, seeded())
    assert torch.equal(result, normalize(batch.images, mean, std, torch.bfloat16))
    assert torch.equal(labels, batch.labels)
    assert result.is_contiguous(memory_format=memory_format)
    with pytest.raises(ValueError, match=r"normalize: mean and std of shape \(3,\) required"):
        task.normalized(images, mean[:2], std)


def test_three_way_is_cutpaste_and_scar():
    images = random_images((8, 3, 64, 64))
    three, parts = CutPaste3Way().augment(images, seeded()), PretextTask(CutPaste(), CutPasteScar())
    assert CutPaste3Way().classes == 3
    assert all(map(torch.equal, three, parts.augment(images, seeded())))


def test_three_way_hands_its_jitter_to_both_parts():
    images = random_images((8, 3, 64, 64))
    parts = PretextTask(CutPaste(jitter=0.3), CutPasteScar(jitter=0.3))
    assert all(map(torch.equal, CutPaste3Way(0.3).augment(images, seeded()), parts.augment(images, seeded())))
    assert [transform.jitter for transform in CutPaste3Way().transforms] == [0.1, 0.1]


def test_rotation_turns_counter_clockwise_class_by_class():
    images = random_images((2, 3, 9, 9))
    batch = TASKS["rotation"].augment(images)
    for turns in range(4):
        assert torch.equal(batch.images[batch.labels == turns], images.rot90(turns, (2, 3)))


@tasks
def test_the_seed_decides(task):
    images = random_images((4, 3, 32, 32))
    assert all(map(torch.equal, task.augment(images, seeded(1)), task.augment(images, seeded(1))))
    if task is not TASKS["rotation"]:
        assert not torch.equal(task(images, seeded(1))[0], task(images, seeded(2))[0])


@tasks
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_memory_format_are_kept_and_the_input_never_written(task, dtype, memory_format):
    images = random_images((3, 3, 16, 16), dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    result, _ = task(images, seeded())
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=memory_format)
    result.zero_()
    assert torch.equal(images, before)


@tasks
@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (2, 3, 1, 1), (2, 1, 16, 16)])
def test_no_image_one_pixel_and_one_channel_work(task, shape):
    batch = task.augment(random_images(shape), seeded())
    assert batch.images.shape == (shape[0] * task.classes, *shape[1:])
    assert len(batch.labels) == len(batch.masks) == len(batch.images)


@pytest.mark.parametrize("shape", [(2, 3, 8, 200), (2, 3, 200, 8)])
def test_wide_and_tall_images_work(shape):
    assert CutPaste3Way()(random_images(shape), seeded())[0].shape == (6, *shape[1:])


@tasks
def test_a_task_can_be_pickled_and_used_after(task):
    images = random_images((3, 3, 32, 32))
    again = pickle.loads(pickle.dumps(task))
    assert all(map(torch.equal, again.augment(images, seeded()), task.augment(images, seeded())))


def test_repr_shows_the_transforms_and_their_settings():
    shown = repr(CutPaste3Way(0.2))
    assert shown.startswith("CutPaste3Way(")
    assert "area=(0.02, 0.15)" in shown
    assert "scar_width=(2, 16)" in shown
    assert shown.count("jitter=0.2") == 2


class Pipeline(nn.Module):
    """What a training step does before the network."""

    def __init__(self, task):
        super().__init__()
        self.base, self.task = BaseAugmentation(), task
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]))

    def forward(self, images):
        images, labels = self.task(self.base(images))
        return normalize(images, self.mean, self.std), labels


@pytest.mark.parametrize("name", ["three way", "rotation"])
def test_base_task_and_normalize_compile_into_one_graph(name):
    torch.compiler.reset()
    pipeline = Pipeline(TASKS[name])
    compiled = torch.compile(pipeline, fullgraph=True, backend="eager")
    for size in (3, 5) if name == "rotation" else (3,):  # the second size recompiles with a symbolic one
        images = random_images((size, 3, 40, 40)).contiguous(memory_format=torch.channels_last)
        torch.manual_seed(4)
        images_compiled, labels_compiled = compiled(images)
        torch.manual_seed(4)
        images_eager, labels_eager = pipeline(images)
        assert torch.equal(labels_compiled, labels_eager)
        differs = (images_compiled - images_eager).abs() > 1e-6  # one multiply-add rounds once, or twice
        assert differs.float().mean() <= 1e-4
        assert_close(images_compiled, images_eager, atol=1.01 / 255 / 0.224, rtol=0)  # and may do so across a tie
        assert images_compiled.is_contiguous(memory_format=torch.channels_last)


def test_the_whole_chain_compiles_once_for_every_batch_size():
    """fullgraph=True refuses a graph break; the counter sees a second compilation."""
    torch.compiler.reset()
    pipeline, counter = Pipeline(TASKS["three way"]), CompileCounterWithBackend("eager")

    @functools.partial(torch.compile, fullgraph=True, dynamic=True, backend=counter)
    def chain(images):
        normalized, labels = pipeline(images)
        return normalized.to(torch.bfloat16).contiguous(memory_format=torch.channels_last), labels

    for batch in (32, 48):
        normalized, labels = chain(random_images((batch, 3, 24, 24)))
        assert normalized.shape == (3 * batch, 3, 24, 24)
        assert normalized.is_contiguous(memory_format=torch.channels_last)
        assert labels.bincount().tolist() == [batch] * 3
    assert counter.frame_count == 1


def test_a_task_launches_the_same_ops_for_any_batch_and_fewer_than_its_transforms_alone():
    def launched(module, batch):
        with Ops() as ops:
            module(
                torch.empty(batch, 3, 24, 24, dtype=torch.uint8, device="meta")
            )  # a device without a CPU's shortcuts
        return ops.names

    task = TASKS["three way"]
    assert launched(task, 1) == launched(task, 64)
    assert not SYNCING & set(launched(task, 64))
    assert len(launched(task, 64)) < sum(len(launched(transform, 64)) for transform in task.transforms)


def test_a_task_never_reads_back_to_the_host():
    images = torch.empty(4, 3, 32, 32, dtype=torch.uint8, device="meta")
    assert all(tensor.device.type == "meta" for tensor in TASKS["five"].augment(images))


def test_a_task_without_transforms_is_refused():
    with pytest.raises(ValueError, match=r"PretextTask: at least one transform required, got 0"):
        PretextTask()


def test_a_task_refuses_what_leaves_images_out():
    for member in (CutPaste(p=0.5), OnForeground(CutPaste(p=0.9)), OneOf(CutPaste(), CutPasteScar(p=0.0))):
        with pytest.raises(ValueError, match=r"p=1 required, .*, got CutPaste.*p="):
            PretextTask(member)


@pytest.mark.parametrize("member", [BaseAugmentation(), nn.Identity()])
def test_a_task_refuses_what_gives_no_mask(member):
    with pytest.raises(TypeError, match=rf"PretextTask: .*required, got {type(member).__name__}"):
        PretextTask(CutPaste(), member)


@tasks
def test_images_that_do_not_fit_are_refused_by_name(task):
    name = type(task).__name__
    with pytest.raises(TypeError, match=rf"{name}: .*uint8.*int32"):
        task(torch.zeros(2, 3, 8, 8, dtype=torch.int32))
    with pytest.raises(ValueError, match=rf"{name}: .*\(B, C, H, W\).*\(3, 8, 8\)"):
        task(torch.zeros(3, 8, 8))


def test_rotation_refuses_oblong_images():
    with pytest.raises(ValueError, match=r"QuarterTurn: square images required, got 8×9"):
        TASKS["rotation"](torch.zeros(2, 3, 8, 9))
