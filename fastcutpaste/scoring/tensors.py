"""Tensors in a file, in which nothing can run code."""

import shutil
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fastcutpaste.files import written_whole


def checksum(tensors: dict[str, Tensor], text: str) -> int:
    """Give the CRC-32 of all bytes of tensors on the CPU, their names and shapes, and a text: against damage."""
    total = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, total)
    return total


def save_tensors(path: str | Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors and text as a safetensors file, whole or not at all, for all to read that may read our files.

    Raises:
        OSError: no room, no leave to write; names `path`.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        # safetensors writes another file, which its owner alone may read and of which we could not tell that it is
        # ours where a kill leaves it: so in a folder of ours. Its `save` to bytes holds up all other threads meanwhile.
        folder = temporary.with_name(f"{temporary.name}.part")
        made = folder / "tensors"
        try:
            folder.mkdir(exist_ok=True)
            save_file(contiguous, made, about)
            (folder / "as ours").touch()
            shutil.copymode(folder / "as ours", made)
            made.rename(temporary)
        except SafetensorError as error:  # how safetensors puts an OSError
            raise OSError(f"{path}: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
