"""Anomalib: any recipe in place of its Perlin anomaly generator, so that its models train with it.

    model = Draem(dtd_dir=folder)  # of which nothing is read then
    model.augmenter = AnomalyGenerator(draem())
    Engine().fit(model, datamodule)

The host decides when anomalies are made and what is learned from them; this page has the shape of what it calls, image
or batch to image and mask, and makes them of a whole batch at once on its device. Only torchvision is needed for that.
"""

from torch import Tensor, nn

from fastcutpaste.op.checks import check_images
from fastcutpaste.op.placement import uniform
from fastcutpaste.transforms.defect import augmented
from fastcutpaste.transforms.ruled import check_augments

OLDEST = "0.24"

try:
    from torchvision.transforms import v2
except ImportError as error:
    raise ImportError(
        f"fastcutpaste.adapters.anomalib: torchvision {OLDEST} or newer required, got {error}: "
        f"pip install 'torchvision>={OLDEST}'"
    ) from error


class AnomalyGenerator(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Make anomalies as anomalib's `PerlinAnomalyGenerator` is asked for them.

    Where its models keep theirs: `Draem().augmenter`, `Glass().model.augmentor`, `Dsr().perlin_generator`.
    `Supersimplenet().model.anomaly_generator.generate_perlin` disturbs features and wants masks alone: `masks`.
    Randomness is that of torch's default generator of the images' device.

    Args:
        maker: what is made and where: a recipe such as `draem()`, any `Defect` or `Mixture`, or a patch transform. What
            takes other images of the batch needs a batch: of one image `fpi()` gives a mask in which nothing changed.
        probability: share of the images that get an anomaly, 0 to 1; the others come back as they are.

    Raises:
        TypeError: no such maker; in use, images that are not floating point.
        ValueError: a probability out of bounds; in use, images of another shape, and on a CPU images that are
            normalized already, as anomalib's pre-processors of other models do.
    """

    def __init__(self, maker: nn.Module, probability: float = 0.5) -> None:
        super().__init__()
        check_augments("AnomalyGenerator", maker)
        if not 0 <= probability <= 1:
            raise ValueError(f"AnomalyGenerator: probability from 0 to 1 required, got {probability}")
        self.maker, self.probability = maker, probability

    def forward(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """Give images with anomalies and masks of these.

        Args:
            img: (C, H, W) or (B, C, H, W), floating point 0–1, never written; the name is anomalib's.

        Returns:
            Images as they came, and masks (1, H, W) or (B, 1, H, W) of the same dtype: 1 where something was changed,
            else 0.
        """
        images = img[None] if img.ndim == 3 else img
        check_images("AnomalyGenerator", images)
        if not images.is_floating_point():
            raise TypeError(f"AnomalyGenerator: images of floating point 0–1 required, got {img.dtype}")
        draws = uniform((len(images), 1 + int(self.maker.numbers)), images.device)  # type: ignore[arg-type]
        made = augmented(self.maker, images, draws=draws[:, 1:])
        chosen = (draws[:, 0] < self.probability).view(-1, 1, 1, 1)
        result, mask = made.images.where(chosen, images), (made.mask & chosen).to(images.dtype)
        return (result[0], mask[0]) if img.ndim == 3 else (result, mask)

    def masks(self, batches: int, height: int, width: int) -> Tensor:
        """Give masks alone, (batches, 1, height, width), int64, of 0 and 1, as SuperSimpleNet asks for them.

        Its maps of features are small: `Perlin(scale=(0, 3))` does with 16 pixels a side.
        """
        mask: Tensor = self(uniform((batches, 1, height, width), "cpu"))[1]
        return mask.long()
