"""Freed memory is kept by the process, and where its user says otherwise it is not."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from fastcutpaste.allocation import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(12 * 2**20)  # 48 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
without = faults()
keep_freed_memory()
faults()
print(without, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has this setting")
@pytest.mark.parametrize("variable", [None, "MALLOC_ARENA_MAX"])
def test_what_is_freed_is_used_again(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "8")
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    without, kept = map(int, run.stdout.split())
    assert without > 80  # pages of 4 KiB are 49,152, of 2 MiB 96
    assert kept < without / 10 if variable is None else kept > without / 2
