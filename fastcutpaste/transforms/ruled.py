"""What transforms and tasks have in common: they take random numbers, and where kernels can, one call does it all."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastcutpaste.op.checks import check_images
from fastcutpaste.op.paste import DrawnAndPasted, draw_and_paste, has_kernels
from fastcutpaste.op.placement import uniform
from fastcutpaste.op.rules import Rules

_T = TypeVar("_T")


def _constant(method: _T) -> _T:
    """Mark what `torch.compile` is to call once and take for a constant.

    As `torch.compiler.assume_constant_result` does, which loads the compiler, two seconds at every import.
    """
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return method


class Ruled(nn.Module):
    """Take random numbers for each image.

    Subclasses say in `task_rules` what kernels need to place and paste at once, if that says all of them.

    Attributes:
        numbers: how many random numbers an image takes.
    """

    numbers: int
    _settings: str = ""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name != "training":  # a text, which compiled code is guarded by: see `_described`
            told = (f"{key}={each!r}" for key, each in vars(self).items() if key[0] != "_" and key != "training")
            vars(self)["_settings"] = ", ".join(told)

    def task_rules(self) -> Rules | None:
        """Give the rules of all classes; None where only the transform itself knows what it does."""
        return None

    def fill(self, images: Tensor, draws: Tensor) -> Tensor | None:
        """Give what is pasted into images (B, C, H, W): None for the images themselves, or as `paste` takes it."""
        return None

    def foreground_sums(self, images: Tensor) -> Tensor | None:
        """Give what candidates are counted in, see `draw_and_paste`, where rules have some."""
        return None

    def by_rules(
        self,
        images: Tensor,
        generator: torch.Generator | None,
        draws: Tensor | None,
        *,
        masked: bool = True,
        normalization: tuple[Tensor, Tensor, torch.dtype] | None = None,
    ) -> DrawnAndPasted | None:
        """Do all of it in kernels, see `draw_and_paste`; None where they cannot. Raises as `drawn`."""
        check_images(type(self).__name__, images)
        if not has_kernels(images):
            return None
        if draws is not None and (draws.dtype != torch.float32 or draws.device != images.device):
            return None  # the general way knows other types, and says what is wrong
        compiling = torch.compiler.is_compiling()  # then a text stands for the rules
        rules = (self._described(self._all_settings()) or None) if compiling else self.task_rules()
        if rules is None:
            return None
        colored = "colored " in rules if isinstance(rules, str) else rules.colored
        tried = "tried " in rules if isinstance(rules, str) else rules.tried
        if draws is not None or generator is not None or colored or not compiling:  # else the kernels' op draws
            draws = drawn(self, images, generator, draws)
        color = self.fill(images, draws) if colored and draws is not None else None
        sums = self.foreground_sums(images) if tried else None
        return draw_and_paste(
            images, draws, self.numbers, rules, color, sums, masked=masked, normalization=normalization
        )

    def _all_settings(self) -> str:
        """Give the settings of this and of all it is made of: compiled code that reads them is made anew for others."""
        return "; ".join(str(getattr(module, "_settings", "")) for module in self.modules())

    @_constant
    def _described(self, settings: str) -> str:
        """Give the rules as a text; none of them: an empty one. Compiled code calls this once for the same settings."""
        rules = self.task_rules()
        return "" if rules is None else rules.described()


def picked(choice: Tensor, options: list[Tensor]) -> Tensor:
    """Take each image's part of the option that its choice, a number from 0 up whose fraction is cut off, points at."""
    result = options[0]
    for i, option in enumerate(options[1:], start=1):
        result = torch.where(choice >= i, option, result)
    return result


def check_augments(who: str, transform: object) -> None:
    """Raise TypeError unless a transform gives one image and its mask for each image, as a pretext task does not."""
    if not isinstance(transform, nn.Module) or not hasattr(transform, "augment") or hasattr(transform, "classes"):
        came = type(transform).__name__
        raise TypeError(f"{who}: a recipe or a transform with augment(), such as CutPaste(), required, got {came}")


def drawn(
    transform: nn.Module, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None
) -> Tensor:
    """Check images and give the draws (B, numbers) of a transform: those that came, or new ones in one call."""
    who = type(transform).__name__
    check_images(who, images)
    shape = (len(images), int(transform.numbers))  # type: ignore[arg-type]
    if draws is None:
        return uniform(shape, images.device, generator)
    if tuple(draws.shape) != shape:
        raise ValueError(f"{who}: draws of shape {shape} required, got {tuple(draws.shape)}")
    return draws
