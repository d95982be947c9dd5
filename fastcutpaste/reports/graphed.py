"""Files scored in turn by an exported graph, without torch: as `scored` does by a detector."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcutpaste.images.readable import AT_ONCE, Unread, read_in_turn
from fastcutpaste.scoring.bands import HeatMap, WholeMap
from fastcutpaste.scoring.graph import Graph, resize_array


class Graphed(NamedTuple):
    """Hold what was found in an image file.

    path: the file.
    size: its (height, width), px.
    score: of the graph.
    map: heat map as it was scored, (h, w); None of whole images.
    """

    path: Path
    size: tuple[int, int]
    score: float
    map: NDArray[np.float32] | None

    def heat(self, _graph: Graph) -> HeatMap | None:
        """Give the heat map at the size of the file."""
        return None if self.map is None else WholeMap(resize_array(self.map, self.size))


def graph_in_turn(graph: Graph, paths: Sequence[Path], strict: bool = False) -> Iterator[list[Graphed | Unread]]:
    """Score image files in their order, read 16 at a time; a file that cannot be read comes as an error.

    Each is resized by Pillow, as for a detector, since decisions are to be the same; and scored by itself, since a
    graph of a padded network takes gigabytes an image.

    Raises:
        ValueError: a file that cannot be read, where `strict`.
    """
    for batch in read_in_turn(paths, graph.config.size, AT_ONCE, strict, graph.config.bits):
        yield [one if isinstance(one, Unread) else Graphed(one.path, one.size, *graph.score(one.pixels))
               for one in batch]  # fmt: skip
