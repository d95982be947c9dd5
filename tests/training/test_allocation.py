"""Freed memory is kept by the process, and where its user says otherwise it is not."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from fastcutpaste.training.allocation import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(12 * 2**20)  # 48 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
without = faults()
keep_freed_memory()
for _ in range(6):
    faults()  # until what small things lie between large ones has settled
print(without, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has this setting")
@pytest.mark.parametrize(
    ("name", "value", "keeps"),
    [
        ("PATH", os.environ.get("PATH", ""), True),
        ("MALLOC_ARENA_MAX", "2", True),  # says nothing about these thresholds
        ("MALLOC_TRIM_THRESHOLD_", "131072", False),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072", False),
    ],
)
def test_what_is_freed_is_used_again_unless_the_user_has_decided(name: str, value: str, keeps: bool) -> None:
    plain = {key: text for key, text in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=plain | {name: value}
    )
    without, kept = map(int, run.stdout.split())
    assert without > 80  # pages of 4 KiB are 49,152, of 2 MiB 96
    assert kept < without / 10 if keeps else kept > without / 2
