"""Laws of the Triton kernels: on a GPU where there is one, else in Triton's interpreter.

The other way to do the same, `paste._paste_grid`, is held against the slow reference by `test_paste`; here the
kernels are held against it.
"""

import os
import subprocess
import sys

import pytest
import torch
from small_patches import patch_at, random_images, random_patches
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fastcutpaste import Cutout, CutPaste, CutPaste3Way, normalize, paste, paste_normalized
from fastcutpaste.op.paste import HAS_TRITON, _paste_grid
from fastcutpaste.op.placement import draw, joined
from fastcutpaste.transforms import ruled

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
GPU, INTERPRETED = torch.cuda.is_available(), os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if GPU else "cpu"
runs_kernels = pytest.mark.gpu if GPU else pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
on_a_gpu = pytest.mark.skipif(not GPU, reason="needs a CUDA device")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TOLERANCE = {torch.uint8: 1, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """Let images that only seem to be on a GPU take the kernels; give the question whether Triton starts."""
    from fastcutpaste.op import kernels

    asked = kernels.triton_starts
    if not GPU:
        monkeypatch.setattr(kernels, "triton_starts", lambda: True)
    asked.cache_clear()
    yield asked
    asked.cache_clear()


def on_device(patches):
    return patches.map(lambda field: field.to(DEVICE))


def check_against_grid(images, patches, fill=None):
    """Compare images within one step of their type, and masks exactly, with the path in torch's own ops."""
    from fastcutpaste.op.kernels import paste_kernels

    images, patches, fill = images.to(DEVICE), on_device(patches), None if fill is None else fill.to(DEVICE)
    before = images.clone()
    pasted, mask = paste_kernels(images, patches, fill)
    wanted = _paste_grid(images, patches, fill)
    tolerance = 0 if patches.jitter is None and patches.feather is None else TOLERANCE[images.dtype]
    assert torch.equal(mask, wanted.mask)
    assert_close(pasted.double(), wanted.images.double(), atol=tolerance, rtol=0)
    assert pasted.stride() == wanted.images.stride()
    assert torch.equal(images, before)
    return pasted


@runs_kernels
@pytest.mark.parametrize(
    ("channels", "dtype", "angle", "jitter"),
    [
        (3, torch.uint8, 0, False),
        (1, torch.uint8, "any", False),
        (3, torch.uint8, "any", True),
        (3, torch.float32, "any", True),
        (1, torch.float32, 0, True),
        (3, torch.bfloat16, 90, True),
        (3, torch.float16, 17, False),
    ],
)
def test_kernels_give_what_the_grid_gives(channels, dtype, angle, jitter):
    shape = (2, channels, 23, 30)
    check_against_grid(random_images(shape, dtype), random_patches(shape, angle, jitter))


@runs_kernels
@pytest.mark.parametrize("kind", ["images", "expanded", "color", "color beside images"])
@pytest.mark.parametrize("jitter", [False, True])
def test_kernels_paste_any_fill(kind, jitter):
    shape = (2, 3, 20, 17)
    images, patches = random_images(shape), random_patches(shape, "any", jitter, seed=4)
    color = random_images((2, 3, 1, 1), seed=2)
    fill = {
        "images": random_images(shape, seed=3).contiguous(memory_format=torch.channels_last),
        "expanded": color.expand(shape),
        "color": color,
        "color beside images": random_images((4, 3, 1, 1), seed=2),
    }[kind]
    if kind == "color beside images":
        patches = joined([patches, random_patches(shape, 0, jitter, seed=5)])
    check_against_grid(images, patches, fill)


@runs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernels_give_every_copy_of_the_batch_its_own_patches(memory_format):
    shape = (2, 3, 20, 33)
    images = random_images(shape).contiguous(memory_format=memory_format)
    patches = joined(
        [random_patches(shape, angle, jitter=True, seed=seed) for seed, angle in enumerate((0, 30, "any"))]
    )
    check_against_grid(images, patches)


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_kernels_fade_a_patch_in(dtype):
    shape = (4, 3, 25, 31)
    patches = random_patches(shape, "any", jitter=dtype == torch.uint8)
    patches = patches._replace(feather=torch.tensor([0.0, 1.0, 3.0, 40.0]))
    check_against_grid(random_images(shape, dtype), patches)


@runs_kernels
@pytest.mark.parametrize("corner", [(-2, -3), (14, 16), (-50, 5), (5, 70)])
@pytest.mark.parametrize("angle", [0, 30])
def test_kernels_cut_a_patch_at_the_border(corner, angle):
    patches = patch_at((1, 2), corner, (7, 9), angle)
    pasted = check_against_grid(random_images((1, 3, 18, 21)), patches)
    assert (pasted.cpu() == random_images((1, 3, 18, 21))).all() == (max(map(abs, corner)) > 20)


@runs_kernels
def test_kernels_paste_nothing_of_no_height_and_all_of_a_whole_image():
    shape = (3, 3, 16, 24)
    patches = random_patches(shape, "any", jitter=True)
    for field, whole in zip(patches.geometry, (0, 0, 0, 0, 16, 24, 0), strict=True):
        field[1] = whole
    patches.height[0], patches.width[2] = 0, 0
    pasted = check_against_grid(random_images(shape), patches).cpu()
    assert torch.equal(pasted[[0, 2]], random_images(shape)[[0, 2]])
    check_against_grid(random_images(shape)[:0], patches.map(lambda field: field[:0]))


@runs_kernels
@pytest.mark.parametrize(
    ("taken", "dtype", "memory_format"),
    [
        (torch.uint8, torch.bfloat16, torch.contiguous_format),
        (torch.uint8, torch.float32, torch.channels_last),
        (torch.bfloat16, torch.float32, torch.contiguous_format),
    ],
)
def test_kernels_normalize_as_normalize_does(dtype, memory_format, taken):
    from fastcutpaste.op.kernels import paste_kernels

    shape = (2, 3, 18, 22)
    images = random_images(shape, taken).contiguous(memory_format=memory_format).to(DEVICE)
    patches = on_device(joined([random_patches(shape, 0, jitter=True), random_patches(shape, 30, jitter=True)]))
    mean, std = MEAN.to(DEVICE), STD.to(DEVICE)
    normalized, mask = paste_kernels(images, patches, masked=False, mean=mean, std=std, dtype=dtype)
    plain, _ = paste_kernels(images, patches)
    wanted = normalize(plain, mean, std, dtype).contiguous(memory_format=torch.channels_last)
    assert normalized.dtype == dtype
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    assert_close(normalized, wanted, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=0)
    assert mask.shape == (0, 1, 18, 22)


@runs_kernels
@pytest.mark.parametrize("normalized", [False, True])
def test_the_op_keeps_torchs_contract(normalized):
    from fastcutpaste.op.kernels import paste_op

    shape = (2, 3, 9, 12)
    patches = on_device(joined([random_patches(shape, "any", jitter=True)] * 2))
    where, how = torch.stack(patches.geometry[:6]), torch.stack(patches.tensors[6:])
    factors = (MEAN.to(DEVICE), STD.to(DEVICE)) if normalized else (None, None)
    dtype = torch.bfloat16 if normalized else torch.uint8
    torch.library.opcheck(
        paste_op,
        (random_images(shape).to(DEVICE), where, how, None, *factors, dtype, not normalized),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


@runs_kernels
def test_the_chain_is_one_graph_around_the_op_for_any_batch(monkeypatch):
    monkeypatch.setattr(ruled, "has_kernels", lambda images: True)
    task, mean, std = CutPaste3Way(), MEAN.to(DEVICE), STD.to(DEVICE)
    torch.compiler.reset()
    compiled = torch.compile(task.normalized, fullgraph=True, backend="eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (2, 3):
            images = random_images((batch, 3, 16, 20)).to(DEVICE)
            draws = torch.rand(batch, task.numbers, generator=torch.Generator().manual_seed(0)).to(DEVICE)
            result, labels = compiled(images, mean, std, torch.bfloat16, draws=draws)
            wanted, wanted_labels = task.normalized(images, mean, std, torch.bfloat16, draws=draws)
            assert torch.equal(labels, wanted_labels)
            assert_close(result, wanted, atol=2e-2, rtol=0)


# Who takes them


class Seen(TorchDispatchMode):
    """Count the calls of the op."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += str(function).startswith("fastcutpaste.")
        return function(*args, **(kwargs or {}))


def calls(work, shape=(4, 3, 32, 32), dtype=torch.uint8, requires_grad=False):
    """Count the op's calls in work(images) on a GPU that need not be there: its tensors have no contents."""
    with FakeTensorMode(), Seen() as seen:
        work(torch.empty(shape, dtype=dtype, device="cuda:0", requires_grad=requires_grad))
    return seen.count


def placed(images):
    return CutPaste().patches(draw(len(images), images.device), 32, 32)


def test_a_gpu_takes_the_kernels_once_a_batch():
    three = CutPaste3Way()
    assert calls(lambda images: paste(images, placed(images))) == 1
    assert calls(CutPaste()) == calls(three) == calls(three.augment) == 1
    assert calls(lambda images: three.normalized(images, *torch.ones(2, 3, device=images.device))) == 1
    assert calls(CutPaste(), (4, 1, 32, 32), torch.bfloat16) == calls(Cutout("mean")) == 1


def test_where_triton_does_not_start_torchs_own_operations_paste(started, monkeypatch):
    from fastcutpaste.op import kernels

    class NoCompiler:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(kernels.triton.runtime, "driver", NoCompiler())
    with pytest.warns(UserWarning, match=r"Triton does not start.*Failed to find C compiler\. Please"):
        assert not started()
    assert not started()  # asked once, said once
    monkeypatch.setattr(kernels, "triton_starts", started)
    assert calls(CutPaste()) == 0


def test_what_kernels_do_not_know_goes_the_other_way():
    assert calls(CutPaste(), (4, 4, 32, 32)) == calls(CutPaste(), dtype=torch.float64) == 0
    assert calls(CutPaste(), dtype=torch.float32, requires_grad=True) == 0
    with Seen() as seen:
        CutPaste()(random_images((2, 3, 32, 32)))
    assert seen.count == 0


def test_the_fake_result_has_the_shape_type_and_order_of_the_real_one():
    with FakeTensorMode():
        images = torch.empty(4, 3, 32, 40, dtype=torch.uint8, device="cuda:0")
        for taken in (images, images.contiguous(memory_format=torch.channels_last)):
            result, mask = paste(taken, placed(taken))
            assert result.stride() == taken.stride()
            assert mask.shape == (4, 1, 32, 40)
            mean = torch.ones(3, device="cuda:0")
            normalized = paste_normalized(taken, placed(taken), mean, mean, torch.bfloat16)
            assert (normalized.dtype, normalized.shape) == (torch.bfloat16, taken.shape)
            assert normalized.is_contiguous(memory_format=torch.channels_last)


# On a GPU alone


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 33])
def test_images_of_full_size_are_right_too(batch, dtype):
    images = random_images((batch, 3, 256, 256), dtype)
    for transform in (CutPaste(jitter=0.4), CutPaste3Way().transforms[1]):
        check_against_grid(images, transform.patches(draw(batch, "cpu"), 256, 256))


@pytest.mark.gpu
@on_a_gpu
def test_the_chain_waits_for_nothing_and_can_be_captured():
    task, mean, std = CutPaste3Way(), MEAN.cuda(), STD.cuda()
    images, draws = random_images((32, 3, 64, 64)).cuda(), torch.rand(32, task.numbers, device="cuda")
    wanted = task.normalized(images, mean, std, torch.bfloat16, draws=draws)[0]
    torch.cuda.set_sync_debug_mode("error")
    try:
        task.normalized(images, mean, std, torch.bfloat16, draws=draws)
        task.augment(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = task.normalized(images, mean, std, torch.bfloat16, draws=draws)[0]
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, wanted)


@pytest.mark.gpu
@on_a_gpu
def test_the_chain_compiles_once_for_two_batch_sizes():
    task, mean, std = CutPaste3Way(), MEAN.cuda(), STD.cuda()

    def chain(images, draws):
        return task.normalized(images, mean, std, torch.bfloat16, draws=draws)[0]

    compiled = torch.compile(chain, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (32, 48):
            images = random_images((batch, 3, 64, 64)).cuda()
            draws = torch.rand(batch, task.numbers, device="cuda")
            result = compiled(images, draws)
            # placement may round a tie the other way: a patch one pixel longer
            differs = (result - chain(images, draws)).abs().amax((1, 2, 3)) > 0.05
            assert differs.float().mean() <= 0.02


@pytest.mark.gpu
@on_a_gpu
def test_a_gradient_still_flows_on_a_gpu():
    images = torch.rand(2, 3, 32, 32, device="cuda", requires_grad=True)
    CutPaste()(images).sum().backward()
    assert images.grad is not None
    assert images.grad.sum() > 0


def test_a_kernel_is_compiled_anew_when_a_constant_changes():
    """Triton finds what it has compiled, on disk too, by a key in which constants of a module have no part."""
    script = (
        "import sys; from fastcutpaste.op import color; color.GREY_WEIGHTS = tuple(map(float, sys.argv[1:]))\n"
        "from fastcutpaste.op.kernel_paste import copy_and_paste\n"
        "from fastcutpaste.op.kernel_plan import plan_patches\n"
        "print(copy_and_paste.cache_key, plan_patches.cache_key)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

    def keys(*weights: str) -> list[str]:
        command = [sys.executable, "-c", script, *weights]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()

    once, again, changed = keys("0.3", "0.6", "0.1"), keys("0.3", "0.6", "0.1"), keys("0.3", "0.5", "0.2")
    assert once == again
    assert not set(once) & set(changed)
