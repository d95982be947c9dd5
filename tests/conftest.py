"""How much of the machine tests take: a worker for each core, and one thread for each worker."""

import os

import torch

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which a test may be the first to do


def pytest_configure() -> None:
    torch.set_num_threads(1)
