"""What a piece of code asks of the device: every aten op by name, and which of them wait for the host."""

from torch.utils._python_dispatch import TorchDispatchMode


class Ops(TorchDispatchMode):
    """Record the name of every aten op."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


SYNCING = {"_local_scalar_dense", "nonzero", "masked_select", "item", "is_nonzero", "equal", "unique_dim", "_unique2"}
