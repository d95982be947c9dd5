"""What a piece of code asks of the device: every aten op by name, what it launches, and what waits for the host."""

from collections.abc import Iterable

from torch.utils._python_dispatch import TorchDispatchMode


class Ops(TorchDispatchMode):
    """Record the name of every op."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


SYNCING = {"_local_scalar_dense", "nonzero", "masked_select", "item", "is_nonzero", "equal", "unique_dim", "_unique2"}
VIEWS = {
    "_unsafe_view",
    "alias",
    "as_strided",
    "detach",
    "device",
    "expand",
    "lift_fresh",
    "permute",
    "select",
    "slice",
    "split",
}
VIEWS |= {"split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view"}
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty"}
OWN = {
    "paste": 2,
    "draw_and_paste": 2,
    "confetti": 1,
    "border": 1,
}  # our ops, and the kernels each of them launches; held by test_ruled


def launches(names: Iterable[str]) -> int:
    """Count what ops put on the device: at least one launch each, but for views and allocations."""
    return sum(OWN.get(name, 1) for name in names if name not in VIEWS | ALLOCATIONS)
