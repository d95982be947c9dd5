"""Laws of the anomalib adapter: the shape of the library's own generator, and its models learn from it."""

from types import SimpleNamespace

import pytest
import torch

from fastcutpaste import CutPaste
from fastcutpaste.adapters.anomalib import AnomalyGenerator
from fastcutpaste.transforms.blends import Replace
from fastcutpaste.transforms.defect import Defect
from fastcutpaste.transforms.fills import Noise
from fastcutpaste.transforms.masks import Perlin
from fastcutpaste.transforms.recipes import draem, fpi


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(6, 3, 64, 80)


def test_an_image_or_a_batch_comes_back_as_from_the_librarys_own(images):
    pytest.importorskip("anomalib", reason="pip install 'fastcutpaste[anomalib]'")
    from anomalib.data.utils.generators import PerlinAnomalyGenerator

    for probability in (0.0, 1.0):
        theirs, ours = PerlinAnomalyGenerator(probability=probability), AnomalyGenerator(draem(), probability)
        assert isinstance(ours, type(theirs).__bases__)
        for given in (images, images[0]):
            before = given.clone()
            for wanted, made in zip(theirs(given), ours(given), strict=True):
                assert made.shape == wanted.shape
                assert made.dtype == wanted.dtype
            result, mask = ours(given)
            assert torch.equal(given, before)
            assert set(mask.unique().tolist()) <= {0.0, 1.0}
            assert torch.equal(result.where(mask == 0, 0), given.where(mask == 0, 0))
            assert (mask.amax() == 0) == torch.equal(result, given)
    assert mask.sum() > 0


def test_each_image_gets_an_anomaly_with_the_probability_and_of_its_own(images):
    generator = AnomalyGenerator(CutPaste(), probability=0.25)
    masks = torch.cat([generator(images)[1] for _ in range(200)])
    share = masks.flatten(1).any(1).float().mean()
    assert 0.2 < share < 0.3
    assert len({mask.numpy().tobytes() for mask in masks}) > 0.8 * share * len(masks)
    assert not AnomalyGenerator(CutPaste(), probability=0.0)(images)[1].any()


@pytest.mark.parametrize("maker", [CutPaste(), fpi()])
def test_anomalies_are_those_of_the_same_draws(images, maker):
    torch.manual_seed(3)
    result, mask = AnomalyGenerator(maker, probability=0.5)(images)
    torch.manual_seed(3)
    draws = torch.rand(6, 1 + maker.numbers)
    made = maker.augment(images, draws=draws[:, 1:])
    for b, first in enumerate(draws[:, 0].tolist()):
        assert torch.equal(result[b], made.images[b] if first < 0.5 else images[b])
        assert torch.equal(mask[b].bool(), made.mask[b] & (first < 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_images_and_masks_are_of_the_type_that_came(images, dtype):
    result, mask = AnomalyGenerator(fpi(), probability=1.0)(images.to(dtype))
    assert result.dtype == mask.dtype == dtype
    assert AnomalyGenerator(fpi())(images[:0])[1].shape == (0, 1, 64, 80)


def test_draem_learns_from_it(images):
    pytest.importorskip("anomalib", reason="pip install 'fastcutpaste[anomalib]'")
    from anomalib.models.image.draem.lightning_model import Draem
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.draem.torch_model import DraemModel

    asked = []
    generator = AnomalyGenerator(draem(), probability=1.0)
    parts = SimpleNamespace(model=DraemModel().train(), loss=DraemLoss(), sspcab=False, log=lambda *a, **b: None)
    parts.augmenter = lambda given: asked.append(generator(given)) or asked[0]
    loss = Draem.training_step(parts, SimpleNamespace(image=images[:2, :, :64, :64]))["loss"]  # with no trainer around
    loss.backward()
    assert len(asked) == 1
    assert torch.isfinite(loss)
    assert all(torch.isfinite(each.grad).all() for each in parts.model.parameters())


def test_supersimplenet_takes_its_masks():
    pytest.importorskip("anomalib", reason="pip install 'fastcutpaste[anomalib]'")
    from anomalib.models.image.supersimplenet.anomaly_generator import AnomalyGenerator as Theirs

    theirs = Theirs(noise_mean=0, noise_std=0.015, threshold=0.2)
    ours = AnomalyGenerator(Defect(Perlin(scale=(0, 3), threshold=0.2), Noise(), Replace()), probability=1.0)
    wanted = theirs.generate_perlin(3, 20, 24)
    made = ours.masks(3, 20, 24)
    assert (made.shape, made.dtype) == (wanted.shape, wanted.dtype)
    assert set(made.unique().tolist()) == {0, 1}
    theirs.generate_perlin = ours.masks
    features = torch.zeros(2, 8, 20, 24)
    disturbed, _, mask, labels = theirs(features, features, torch.zeros(2, 1, 20, 24), torch.zeros(2))
    assert torch.equal(disturbed.ne(0).any(1, keepdim=True), mask.bool())
    assert torch.equal(labels.bool(), mask.flatten(1).any(1))
    assert mask.any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: AnomalyGenerator(torch.nn.Identity()),
            TypeError,
            r"augment\(\), such as CutPaste\(\), required, got Identity",
        ),
        (lambda: AnomalyGenerator(fpi(), probability=1.5), ValueError, "probability from 0 to 1 required, got 1.5"),
        (lambda: AnomalyGenerator(fpi())(torch.zeros(3, 8, 8, dtype=torch.uint8)), TypeError, "floating point"),
        (lambda: AnomalyGenerator(fpi())(torch.zeros(8, 8)), ValueError, r"\(B, C, H, W\)"),
        (lambda: AnomalyGenerator(fpi())(torch.full((3, 8, 8), -2.0)), ValueError, "0–1"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
