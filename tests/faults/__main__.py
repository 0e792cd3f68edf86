"""Inject every fault and write the table of results: ``python -m tests.faults``.

    python -m tests.faults                      # all: results/reliability.md
    python -m tests.faults lock record          # rows whose names contain one of these words

The table replaces the text between its markers. Exit code 1: a run lost something.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers

from neuroal import __version__
from tests.faults import checkpoints, computing, damage, processes, storage
from tests.faults.rig import LINE, REPAIRED, Injection, Rig

PAGE = Path(__file__).resolve().parents[2] / "results" / "reliability.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
KILLED, LOST = "killed", "lost"
SEED = 0


def injections(rig: Rig) -> Iterator[Injection]:
    """Yield all injections, by kind."""
    yield from damage.damaged_files(SEED)
    yield from damage.locks(SEED)
    yield from storage.failing_operations(rig)
    if storage.can_mount():
        yield from storage.full_disks(rig)
        yield from storage.read_only(rig)
    yield from processes.signals(SEED)
    yield from processes.suspended(SEED)
    yield from processes.together()
    yield from processes.real_processes(SEED)
    yield from computing.out_of_memory(SEED)
    yield from computing.nan_activations(SEED)
    yield from checkpoints.damaged_checkpoints(SEED)
    yield from computing.unreachable_tracking()


def inject(rig: Rig, injection: Injection, folder: Path) -> str:
    """Do one injection; return how the run survived, or `LOST` after printing why."""
    try:
        return injection.run(rig, folder)
    except Exception as error:
        detail = "" if isinstance(error, AssertionError) else traceback.format_exc()
        print(f"LOST {injection.fault}: {injection.name}: {error}\n{detail}", flush=True)
        return LOST
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(words: Sequence[str]) -> int:
    """Inject the faults whose names contain one of `words`; return the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if started in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    counts: dict[str, Counter[str]] = {}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="neuroal-faults-") as folder:
        os.environ["NEUROAL_CACHE"] = f"{folder}/cache"  # not among the rates of this user's runs
        rig = Rig.build(Path(folder))
        chosen = [i for i in injections(rig) if not words or any(word in i.fault for word in words)]
        folders = [Path(folder) / str(number) for number in range(len(chosen))]
        with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as pool:
            ways = pool.map(inject, [rig] * len(chosen), chosen, folders)
            for injection, way in zip(chosen, ways, strict=True):
                if injection.fault not in counts:
                    print(f"{time.perf_counter() - begin:6.0f} s  {injection.fault}", flush=True)
                counts.setdefault(injection.fault, Counter())[way] += 1
    text = table(counts, time.perf_counter() - begin)
    print(text)
    if not words:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return int(any(ways[LOST] for ways in counts.values()))


def table(counts: dict[str, Counter[str]], seconds: float) -> str:
    """Return the results as Markdown, with machine, versions, date and duration."""
    total = sum(counts.values(), Counter[str]())
    rows = [*counts.items(), ("**all**", total)]
    head = "| fault | injected | finished | stopped with one line | killed | lost |"
    lines = [head, "|---|---:|---:|---:|---:|---:|"]
    for fault, ways in rows:
        cells = (ways.total(), ways[REPAIRED], ways[LINE], ways[KILLED], ways[LOST])
        lines.append(
            f"| {fault} | {' | '.join(f'{n:,}' if n else '–' for n in cells[:-1])} | {cells[-1]} |"
        )
    versions = (
        f"NeuroAL {__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    machine = f"{os.cpu_count()} cores, {system}"
    day = datetime.now(UTC).date().isoformat()
    return "\n".join([*lines, "", f"{day}, {machine}, {versions}, {seconds / 60:.0f} minutes."])


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["TQDM_DISABLE"] = "1"
    sys.exit(main(sys.argv[1:]))
