"""A siege of the library: killed, told twice to stop, left without room, given damaged files, kept busy.

    python -m benchmarks.siege --minutes 15                       until at least as much is tried as is asked for
    python -m benchmarks.siege --minutes 15 --table docs/siege.md     and the table written anew

Commands are attacked while images are scored in another process, and then files are damaged. Faults are said when
they are found, and the files then stay; the end is a table and, on the last line, JSON; the status is 1 after a fault.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import torch

from benchmarks.rows import commit, cpu_name
from benchmarks.siege.endurance import Held, endure
from benchmarks.siege.field import PROCESSES, make_field
from benchmarks.siege.fuzz import RESULTS, Fuzz
from benchmarks.siege.kills import Kills
from fastcutpaste.files import written_whole

_TEXT = """# Siege

What was tried, how often, and what came of it. A fault is a traceback, an end by any status or signal but the right
ones, a file that is half there, a result that is lost or there twice, code that runs, a hang, memory, threads or files
that a process keeps.

`python -m benchmarks.siege --minutes {minutes:g} --seed {seed}` at commit {commit}, {day}, {processor}, torch {torch}.

## {attacks} attacks on commands, {wrong} faults

Each at a random time of the command, or at one of its writes. *Ended*: before the attack had an effect. *Cut*: what was
there was whole, and gone on with ended as if never cut, trainings bit for bit and nights of predictions in the same
lines. On a full disk a file may have 20 to 400 kB.

{attacked}

## {files} damaged files

*Read as something else*: without a word, as numbers of its own: an image has no checksum, nor has a graph.

{damaged}

## {scored} images scored in one process

{unread} files could not be read meanwhile, and the detector was loaded {loaded} times.

| | after a fifth | at the end |
|---|---|---|
{held}
"""
GROWTH = 30.0  # MB that a process may come to hold: allocators keep some of what they are given back


def main(arguments: list[str] | None = None) -> int:
    """Besiege; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.siege", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="of attacks, at least")
    parser.add_argument("--kills", type=int, default=200, help="at least")
    parser.add_argument("--files", type=int, default=2000, help="damaged, at least")
    parser.add_argument("--images", type=int, default=10_000, help="scored in one process, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="file for the table, in Markdown")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="siege-"))
    field = make_field(folder)
    kills, fuzz = Kills(field, asked.seed), Fuzz(field, asked.seed)
    with ThreadPoolExecutor() as pool, PROCESSES.Pool(1) as alone:
        attacking = pool.submit(kills.go_on, asked.minutes * 60, asked.kills)
        counts, early, end = alone.apply(endure, (field, asked.images))
        fuzz.go_on(asked.minutes * 40, asked.files)
        print(f"{fuzz.count} damaged files, {len(fuzz.faults)} faults", file=sys.stderr)
        attacking.result()
    for fault in (leaked := leaks(early, end)):
        print(f"fault: {fault}", file=sys.stderr)
    faults = [*kills.faults, *fuzz.faults, *leaked]
    if not faults:
        shutil.rmtree(folder)  # else its files are what to look at
    text = table(kills, fuzz, counts, early, end, asked)
    print(text)
    if asked.table is not None:
        with written_whole(asked.table) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(json.dumps({"kills": kills.count, "files": fuzz.count, **counts, "faults": len(faults)}))
    return 1 if faults else 0


def leaks(early: Held, end: Held) -> list[str]:
    """Name what a process came to hold while it scored."""
    found = []
    if end.megabytes > early.megabytes + GROWTH:
        found.append(f"endurance: at most {GROWTH:g} MB more required, got {end.megabytes - early.megabytes:.0f}")
    if end.threads > early.threads or end.files > early.files:
        found.append(f"endurance: no more threads and open files required, got {early} and then {end}")
    return found


def table(kills: Kills, fuzz: Fuzz, counts: dict[str, int], early: Held, end: Held, asked: argparse.Namespace) -> str:
    """Write what was tried, how often and with what result, in Markdown."""
    held = [f"| {name} | {one:.0f} | {other:.0f} |"
            for name, one, other in zip(("MB", "threads", "open files"), early, end, strict=True)]  # fmt: skip
    return _TEXT.format(
        minutes=asked.minutes, seed=asked.seed, commit=commit(), day=date.today().isoformat(),
        processor=cpu_name(), torch=torch.__version__, attacks=kills.count, wrong=len(kills.faults),
        attacked="\n".join(_rows(kills.tried, ("command", "attack"), ("ended", "cut"))), files=fuzz.count,
        damaged="\n".join(_rows(fuzz.tried, ("file", "damage"), tuple(RESULTS))), held="\n".join(held), **counts,
    )  # fmt: skip


def _rows(tried: Counter[tuple[str, str, str]], names: tuple[str, str], came: tuple[str, ...]) -> list[str]:
    heads = [*names, "tried", *came]
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for first, second in sorted({key[:2] for key in tried}):
        numbers = [tried[first, second, one] for one in came]
        rows.append("| " + " | ".join([first, second, *map(str, (sum(numbers), *numbers))]) + " |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
