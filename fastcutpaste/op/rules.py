"""Rules: what a transform is set to as plain numbers, for a kernel that places the patches of a whole task at once."""

import functools
import json
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """Name the formulas of a rule."""

    NOTHING = 0
    RECTANGLE = 1  # as `place_cutpaste`
    TWO_HALVES = 2  # as `place_cutpaste` with "two_uniforms"
    STRIP = 3  # as `place_scar`
    WHOLE = 4  # the whole image, shifted and mirrored at the border, as `translate`


class Rule(NamedTuple):
    """Say how a transform places its patch."""

    kind: float = Kind.NOTHING
    low_0: float = 0.0  # area, fraction of the image; of a strip: length, pixels; of a whole: largest shift, fraction
    high_0: float = 0.0
    low_1: float = 0.0  # half the logarithm of the aspect, with two halves the aspect; of a strip: width, pixels
    high_1: float = 0.0
    low_2: float = 0.0  # of a strip: rotation, degrees
    high_2: float = 0.0
    reference: float = 0.0  # of a strip: image side its pixels refer to; 0: pixels as they are
    brightness: float = 0.0  # largest changes, as of `place_jitter`
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: float = 1.0  # share of the images that get a patch
    feather: float = 0.0
    neighbour: float = 0.0  # 1: cut out of the image before in the batch
    colored: float = 0.0  # 1: what is pasted is a color
    column: float = 0.0  # first of its draws
    choice: float = 0.0  # the draw that chooses between the members, which lie one after another
    members: float = 1.0
    candidates: float = 0.0  # places tried besides the first for one that holds enough foreground; 0: none
    candidate: float = 0.0  # first of the draws for them: source y and x, y and x of each
    least: float = 0.0  # share of the patch that has to be foreground

    def after(self, columns: int) -> "Rule":
        """Give the rule where other draws come before its own."""
        column, choice, candidate = self.column + columns, self.choice + columns, self.candidate + columns
        return self._replace(column=column, choice=choice, candidate=candidate)


class Rules(NamedTuple):
    """Hold the rules of all classes of a task.

    Those of a class lie one after another; where it has fewer members than the largest, rules that do nothing follow.
    """

    table: tuple[float, ...]
    classes: int
    members: int  # of the largest class
    colored: bool  # whether some paste a color
    tried: bool  # whether some have candidates

    def described(self) -> str:
        """Give all of it as a text, which `torch.compile` takes for a constant where it would follow each number."""
        return f"{'colored ' * self.colored}{'tried ' * self.tried}{json.dumps(self)}"


@functools.lru_cache(maxsize=256)
def rules_of(classes: tuple[tuple[Rule, ...], ...], columns: tuple[int, ...] = (0,)) -> Rules:
    """Put the rules of classes into one table; of each class the draws begin at a column of its own."""
    classes = tuple(tuple(rule.after(column) for rule in rules) for rules, column in zip(classes, columns, strict=True))
    members = max(len(rules) for rules in classes)
    every = [rule for rules in classes for rule in (*rules, *[Rule()] * (members - len(rules)))]
    table = tuple(number for rule in every for number in rule)
    colored, tried = any(rule.colored for rule in every), any(rule.candidates for rule in every)
    return Rules(table, len(classes), members, colored, tried)


@functools.lru_cache(maxsize=256)
def rules_from(description: str) -> Rules:
    """Read what `Rules.described` gave."""
    table, *others = json.loads(description[description.index("[") :])
    return Rules(tuple(table), *others)
