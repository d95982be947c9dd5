"""Transforms done by kernels: the patches, pixels, masks and labels of torch's own way, in a handful of launches."""

import os

import pytest
import torch
from recorder import OWN, SYNCING, Ops, launches
from small_patches import random_images
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from fastcutpaste import (
    BaseAugmentation,
    Confetti,
    Cutout,
    CutPaste,
    CutPaste3Way,
    CutPasteScar,
    OneOf,
    OnForeground,
    PretextTask,
    QuarterTurn,
    Scar,
)
from fastcutpaste.op.paste import HAS_TRITON
from fastcutpaste.op.rules import Rule, rules_from, rules_of
from fastcutpaste.transforms import baselines, ruled
from fastcutpaste.transforms.recipes import recipe

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
GPU, INTERPRETED = torch.cuda.is_available(), os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if GPU else "cpu"
runs_kernels = pytest.mark.gpu if GPU else pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
TOLERANCE = {torch.uint8: 1, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])


def bright(images):
    """Take the brighter half of the first channel for the object."""
    return images[:, :1] > (127 if images.dtype == torch.uint8 else 0.5)


class OtherWay(torch.Tensor):
    """Draws that take torch's own way to place patches, in float32, whatever the device."""


def in_kernels(monkeypatch, yes=True):
    for module in (ruled, baselines):
        monkeypatch.setattr(module, "has_kernels", lambda images: yes)


def draws_for(transform, batch, seed=0):
    return torch.rand(batch, transform.numbers, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


# Placement


def planned(transform, draws, height, width):
    """Give the plans (B, 32) of the first kernel for images of height × width that need not be there."""
    from fastcutpaste.op import kernels
    from fastcutpaste.op.kernel_plan import plan_patches

    rules, batch = transform.task_rules(), len(draws)
    table, flags = kernels._rules_on(draws.device, rules.table)
    image, labels = torch.zeros(1, 3, 1, 1, dtype=torch.uint8, device=DEVICE), torch.empty(batch, device=DEVICE).long()
    plan = torch.empty(batch, 32, device=DEVICE)
    plan_patches[batch, 1](
        image, plan, labels, draws, draws, table, draws, draws.shape[1], rules.members, batch, batch, height, width,
        1, 3, 1, 1, 1, CHANNELS=3, SUMMED=False, OVERLAPPED=False, **flags, enable_fp_fusion=False,
    )  # fmt: skip
    return plan


@runs_kernels
@pytest.mark.parametrize(
    "transform",
    [
        CutPaste(),
        CutPaste(
            area=(0.3, 0.9), aspect=(0.05, 20), aspect_distribution="two_uniforms", jitter=(0.1, 0, 0.3, 0.5), p=0.4
        ),
        CutPasteScar(feather=2.5),
        CutPasteScar((1, 40), (3, 300), (-180, 180), reference=None, jitter=1e-3),
        OneOf(CutPaste(p=0.7), CutPasteScar(rotation=(90, 90)), CutPaste(jitter=0.4)),
    ],
    ids=["cutpaste", "two halves", "scar", "long scar", "one of three"],
)
@pytest.mark.parametrize(("height", "width"), [(256, 256), (97, 301), (1, 9)])
def test_a_kernel_places_patches_bit_for_bit_as_torch_does(transform, height, width):
    count = 140  # times 15: thousands of draws
    draws = draws_for(transform, count, seed=height)
    plan = planned(transform, draws, height, width)
    patches = transform.patches(draws.as_subclass(OtherWay), height, width).map(lambda f: f.as_subclass(torch.Tensor))
    wanted = torch.stack([field.float() for field in patches.geometry[:6]], 1)  # (B, 6)
    there = wanted[:, 4] > 0
    assert torch.equal(plan[:, [9, 10]].prod(1) > 0, there)
    assert torch.equal(plan[there][:, [5, 6, 7, 8, 9, 10]], wanted[there])
    assert torch.equal(plan[:, 13:18], torch.stack(tuple(patches.jitter), 1))
    radians = patches.angle.deg2rad()
    turned = torch.where(radians.cos().abs() < 1e-6, 0, radians.cos()), radians.sin()
    assert_close(plan[:, 11:13], torch.stack(turned, 1), atol=1.2e-7, rtol=0)  # a unit in the last place
    feather = torch.zeros(count, device=DEVICE) if patches.feather is None else patches.feather
    assert torch.equal(plan[:, 18], feather)


@pytest.mark.parametrize("classes", [[[Rule()]], [[Rule(1, 0.1)], [Rule(3, p=0.3), Rule(2, colored=1, candidates=4)]]])
def test_rules_come_back_from_their_description(classes):
    rules = rules_of(tuple(map(tuple, classes)), (0,) * len(classes))
    assert rules_from(rules.described()) == rules
    assert ("colored " in rules.described(), "tried " in rules.described()) == (rules.colored, rules.tried)
    assert len(rules.table) == rules.classes * rules.members * len(Rule._fields)


# Pixels


def compare(monkeypatch, transform, method, shape=(3, 3, 24, 37), dtype=torch.uint8, taken=None, tolerance=None):
    """Compare what kernels give with torch's own way, on the same draws."""
    images = random_images(shape, dtype).to(DEVICE) if taken is None else taken
    draws, before = draws_for(transform, len(images)), images.clone()
    arguments = (MEAN.to(DEVICE), STD.to(DEVICE), torch.float32) if method == "normalized" else ()
    results = []
    for yes in (False, True):
        in_kernels(monkeypatch, yes)
        result = getattr(transform, method)(images, *arguments, draws=draws)
        results.append(result if isinstance(result, tuple) else (result,))
    for wanted, made in zip(*results, strict=True):
        assert (made.shape, made.dtype) == (wanted.shape, wanted.dtype)
        if made.dtype == dtype or method == "normalized":
            limit = 1e-4 if method == "normalized" else TOLERANCE[dtype]
            assert_close(made.double(), wanted.double(), atol=limit if tolerance is None else tolerance, rtol=0)
        else:
            assert torch.equal(made, wanted)
    if method != "normalized" and len(images):
        assert results[1][0].stride() == results[0][0].stride()
    assert torch.equal(images, before)
    return results[1]


UNION = PretextTask(OneOf(CutPaste(source="other"), CutPasteScar(jitter=0)))
AWARE = PretextTask(
    OnForeground(CutPaste(), bright), CutPaste(), OnForeground(OneOf(CutPasteScar(), CutPaste()), bright, 0.3, 5)
)


TASKS = {"3-way": CutPaste3Way(), "union": UNION, "aware": AWARE, "cutout": PretextTask(Cutout("mean"))}


@runs_kernels
@pytest.mark.parametrize("method", ["augment", "forward", "normalized"])
@pytest.mark.parametrize(
    "task", [CutPaste3Way(), UNION, AWARE, PretextTask(Cutout("mean"))], ids=["3-way", "union", "aware", "cutout"]
)
def test_a_task_in_kernels_is_the_task_in_torch(monkeypatch, task, method):
    result = compare(monkeypatch, task, method)
    labels = result[1].tolist()
    assert labels == [label for label in range(task.classes) for _ in range(3)]


@runs_kernels
@pytest.mark.parametrize(
    ("transform", "dtype"),
    [
        (CutPaste(source="other", feather=3, p=0.6), torch.uint8),
        (CutPaste(), torch.bfloat16),
        (CutPasteScar(jitter=0.5), torch.float16),
        (OneOf(CutPaste(p=0.5), CutPasteScar(source="other")), torch.float32),
        (Cutout("black"), torch.uint8),
        (Scar("random"), torch.uint8),
        (OnForeground(Cutout("mean"), bright), torch.uint8),
        (OnForeground(CutPasteScar(source="other"), bright, least=1.0, candidates=1), torch.float32),
        (OnForeground(CutPaste(), lambda images: images[:, :1] < 0), torch.uint8),  # there is no object
        (BaseAugmentation(0.9, (0.1, 0.2, 0.3, 0.5)), torch.float32),
        (BaseAugmentation(jitter=0), torch.uint8),
        (Confetti(0.05), torch.uint8),
        (Confetti(0.02, side=3), torch.float32),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else str(value)[6:],
)  # fmt: skip
def test_a_transform_in_kernels_is_the_transform_in_torch(monkeypatch, transform, dtype):
    compare(monkeypatch, transform, "forward", dtype=dtype)
    if hasattr(transform, "augment"):
        compare(monkeypatch, transform, "augment", dtype=dtype)


@runs_kernels
@pytest.mark.parametrize("shape", [(1, 3, 24, 24), (2, 1, 17, 31), (4, 3, 1, 1), (1, 3, 300, 7), (0, 3, 9, 9)])
def test_any_shape_comes_out_right(monkeypatch, shape):
    compare(monkeypatch, CutPaste(), "augment", shape)
    if shape[0]:
        images = random_images((*shape[:2], shape[3], shape[2])).to(DEVICE).transpose(2, 3)
        compare(monkeypatch, CutPasteScar(), "augment", shape, taken=images)  # neither contiguous nor channels_last


@runs_kernels
def test_upright_patches_without_jitter_are_copied_bit_for_bit(monkeypatch):
    images = random_images((3, 3, 40, 33)).contiguous(memory_format=torch.channels_last).to(DEVICE)
    pasted, mask = compare(monkeypatch, CutPaste(jitter=0), "augment", taken=images, tolerance=0)
    assert mask.any((1, 2, 3)).all()
    assert torch.equal(torch.where(mask, images, pasted), images)


@runs_kernels
def test_a_generator_decides_and_one_call_draws(monkeypatch):
    in_kernels(monkeypatch)
    images, task = random_images((2, 3, 20, 20)).to(DEVICE), CutPaste3Way()
    made = [task(images, torch.Generator(DEVICE).manual_seed(seed))[0] for seed in (3, 3, 4)]
    draws = torch.rand(2, task.numbers, generator=torch.Generator(DEVICE).manual_seed(3), device=DEVICE)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], task(images, draws=draws)[0])
    assert not torch.equal(made[0], made[2])


class Corner(CutPaste):
    """Paste into the upper left corner, as no rule can say."""

    def place(self, draws, height, width):
        patches = super().place(draws, height, width)
        return patches._replace(y=patches.y * 0, x=patches.x * 0)


class Inverted(CutPaste):
    """Paste the image's negative."""

    def fill(self, images, draws):
        return 255 - images


@pytest.mark.parametrize("transform", [Corner(), Inverted(), OneOf(CutPaste(), Corner()), OnForeground(Inverted())])
def test_what_a_rule_cannot_say_has_none(transform):
    assert transform.task_rules() is None
    assert PretextTask(CutPaste(), transform).task_rules() is None


def test_a_task_has_one_foreground_and_no_color_beside_others():
    assert PretextTask(OnForeground(CutPaste()), OnForeground(CutPasteScar())).task_rules() is not None
    assert PretextTask(OnForeground(CutPaste()), OnForeground(CutPaste(), bright)).task_rules() is None
    assert PretextTask(CutPaste(), Cutout()).task_rules() is None
    assert PretextTask(CutPaste(), QuarterTurn(1)).task_rules() is None


# Launches


def asked(call, batch):
    """Give the ops of call(images) on a GPU that need not be there: its tensors have no contents."""
    with FakeTensorMode(), Ops() as ops:
        call(torch.empty(batch, 3, 64, 64, dtype=torch.uint8, device="cuda:0"))
    return ops.names


def normalized(images):
    return TASKS["3-way"].normalized(images, *torch.empty(2, 3, device=images.device).unbind(), torch.bfloat16)


ALONE = ("cutpaste", "cutpaste_scar", "confetti", "cutout")  # recipes of one transform
SIX_OR_FEWER = {
    "CutPaste": CutPaste(),
    "CutPaste.augment": CutPaste(source="other", p=0.5, feather=2).augment,
    "CutPasteScar": CutPasteScar(),
    "CutPasteScar.augment": CutPasteScar().augment,
    "OneOf": OneOf(CutPaste(), CutPasteScar(source="other")),
    "OneOf.augment": OneOf(CutPaste(), CutPasteScar()).augment,
    "PretextTask of OneOf": UNION,
    "PretextTask.augment": UNION.augment,
    "CutPaste3Way": CutPaste3Way(),
    "CutPaste3Way.augment": CutPaste3Way().augment,
    "CutPaste3Way.normalized": normalized,
    "BaseAugmentation": BaseAugmentation(),
    "Cutout": Cutout("mean"),
    "Scar": Scar().augment,
    "PretextTask of Cutout": PretextTask(Cutout("random")),
    "QuarterTurn": QuarterTurn(1),
    "Confetti": Confetti(),
    **{name: recipe(name) for name in ALONE},
}


@pytest.fixture
def kernels_start(monkeypatch):
    from fastcutpaste.op import kernels

    monkeypatch.setattr(kernels, "triton_starts", lambda: True)


@pytest.mark.usefixtures("kernels_start")
@pytest.mark.parametrize("name", SIX_OR_FEWER)
def test_a_call_makes_six_launches_at_most_whatever_the_batch(name):
    ops = asked(SIX_OR_FEWER[name], 2)
    assert launches(ops) <= 6, ops
    assert ops == asked(SIX_OR_FEWER[name], 128)
    assert not SYNCING & set(ops)


@pytest.mark.usefixtures("kernels_start")
@pytest.mark.parametrize("name", ALONE)
def test_a_recipe_of_one_transform_asks_what_the_transform_alone_asks(name):
    assert asked(recipe(name), 16) == asked(recipe(name).transforms[0], 16)


@pytest.mark.usefixtures("kernels_start")
@pytest.mark.parametrize(
    ("transform", "before"),
    [(OnForeground(CutPaste()), 175), (OnForeground(CutPasteScar()).augment, 195), (AWARE, 500)],
    ids=["OnForeground", "OnForeground of scars", "a task on the object"],
)
def test_what_needs_more_makes_half_of_what_it_made(transform, before):
    ops = asked(transform, 2)
    assert launches(ops) <= before / 2, ops
    assert ops == asked(transform, 128)
    assert not SYNCING & set(ops)


@runs_kernels
@pytest.mark.parametrize("op", ["paste", "draw_and_paste"])
def test_an_op_launches_as_many_kernels_as_are_counted(monkeypatch, op):
    from fastcutpaste.op import kernels

    launched = []

    class Counted:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            launched.append(grid)
            return self.kernel[grid]

    for name in ("plan_patches", "copy_and_paste"):
        monkeypatch.setattr(kernels, name, Counted(getattr(kernels, name)))
    images, transform = random_images((2, 3, 16, 16)).to(DEVICE), CutPaste()
    draws = draws_for(transform, 2)
    if op == "paste":
        kernels.paste_kernels(images, transform.patches(draws, 16, 16))
    else:
        kernels.draw_and_paste_kernels(images, draws, transform.numbers, transform.task_rules())
    assert len(launched) == OWN[op]


@runs_kernels
def test_compiled_a_task_is_one_op_that_draws_too(monkeypatch):
    from fastcutpaste.op import kernels

    in_kernels(monkeypatch)
    task, seen = CutPaste3Way(jitter=0.123), []  # rules that no other test has

    def note(graph, inputs):
        seen.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(task, fullgraph=True, backend=note, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (2, 3):
            images = random_images((batch, 3, 16, 20)).to(DEVICE)
            torch.manual_seed(1)
            made, labels = compiled(images)
            torch.manual_seed(1)
            wanted, wanted_labels = task(images)
            assert torch.equal(labels, wanted_labels)
            assert_close(made, wanted, atol=1, rtol=0)
    table, _ = kernels._rules_on(torch.device(DEVICE), task.task_rules().table)
    assert type(table) is torch.Tensor  # made while it was traced, and no fake
    [targets] = seen
    assert [target for target in targets if "getitem" not in target and "size" not in target] == [
        "fastcutpaste.draw_and_paste.default"
    ]


@runs_kernels
def test_compiled_code_of_one_task_is_not_taken_for_a_task_set_otherwise(monkeypatch):
    in_kernels(monkeypatch)
    torch.compiler.reset()
    images = random_images((2, 3, 8, 9)).to(DEVICE)

    def compared(task):
        torch.manual_seed(1)
        made, _ = torch.compile(task, fullgraph=True, backend="eager")(images)
        torch.manual_seed(1)
        wanted, _ = task(images)
        assert_close(made, wanted, atol=1, rtol=0)
        return wanted

    one, other = compared(PretextTask(CutPaste())), compared(PretextTask(CutPaste(source="other")))
    assert not torch.equal(one, other)
    member = OneOf(CutPaste(), CutPasteScar())
    compared(PretextTask(member))
    member.transforms[1].scar_length = (20, 40)  # a task that was compiled already, its member's member set otherwise
    compared(PretextTask(member))


# On a GPU alone


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("name", SIX_OR_FEWER)
def test_a_call_waits_for_nothing_and_can_be_captured(name):
    call = SIX_OR_FEWER[name]
    images = random_images((8, 3, 64, 64)).cuda()
    call(images)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = call(images)
    made = made[0] if isinstance(made, tuple) else made
    graph.replay()
    first = made.clone()
    graph.replay()
    assert made.shape[1:] == images.shape[1:]
    assert name == "QuarterTurn" or not torch.equal(first, made)  # each replay draws anew
