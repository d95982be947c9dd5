"""Shares: what each of several processes takes of a list, and how the parts come together again."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Union

if TYPE_CHECKING:  # a graph is scored without torch
    from lightning_fabric import Fabric

Item = TypeVar("Item")
_STARTED_BY = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "SLURM_NTASKS", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class Alone(NamedTuple):
    """Stand for the one process of a command that trains nothing, as a Fabric does for one of several.

    device: of torch; None where a graph is scored without it.
    """

    device: Any = None
    global_rank: int = 0
    world_size: int = 1
    is_global_zero: bool = True


def one_of_several() -> bool:
    """Tell whether `torchrun`, SLURM, LSF or MPI has started this process beside others, for Fabric to say which."""
    return any(name in os.environ for name in _STARTED_BY)


def share_of(items: Sequence[Item], fabric: Union["Fabric", Alone]) -> list[Item]:
    """Give this process's share of a list: every n-th item of n processes."""
    return list(items[fabric.global_rank :: fabric.world_size])


def gathered(mine: Sequence[Item], fabric: Union["Fabric", Alone]) -> list[Item]:
    """Put the shares of all processes back into the list's order; every process gets the whole list."""
    if fabric.world_size == 1:
        return list(mine)
    import torch

    shares: list[list[Item]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(shares, list(mine))
    return [share[turn] for turn in range(len(shares[0])) for share in shares if turn < len(share)]
