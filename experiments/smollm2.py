"""SmolLM2-135M on nine tasks: dense, and Wanda at 50 and 60 % under three top-ups.

    python experiments/smollm2.py data.root=../shared/data
    python experiments/smollm2.py --jobs 4 data.root=../shared/data     # four processes, one GPU

Perplexity on WikiText-2, PTB and the evaluation rows of c4_sample; zero-shot accuracy on the six
tasks of the paper other than HellaSwag, by lm-eval. Whatever follows the flags is set in every run,
as for the command `neuroal`; `task.limit=8` makes a trial of it. The tables are printed and written
to `results/smollm2.md`. Started again, finished work is found in `--out`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pool import run_all

from neuroal.cli import composed
from neuroal.measure import MEASURED
from neuroal.records.identity import identity
from neuroal.tables.labels import label

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("wikitext2", "ptb", "c4_sample")
ZERO_SHOT = ("rte", "winogrande", "boolq", "arc_easy", "arc_challenge", "openbookqa")
RUN = [
    "model=smollm2-135m-instruct-q4",
    "model.dtype=float32",
    "pruner=wanda",
    "calibration=c4_sample",
    f"task.names=[{','.join([*TEXTS, *ZERO_SHOT])}]",
]
SPARSITIES = {"s50": "50 %", "s60": "60 %"}
TOPUPS = {
    "uniform": [],
    "neuroal": [],
    "marginal": ["calibration.search_windows=64"],
}
"""Top-up → what its runs set besides."""
Record = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("overrides", nargs="*", help="as for the command neuroal, for every run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=4, help="of each process, on the CPU")
    parser.add_argument("--out", default="runs/smollm2", help="folder for records")
    parser.add_argument("--only", default="", help="runs whose name contains this, no tables")
    parser.add_argument("--so-far", action="store_true", help="run nothing, show what is there")
    parser.add_argument("--target", type=Path, default=ROOT / "results" / "smollm2.md")
    arguments = parser.parse_args()
    given = {override.partition("=")[0] for override in arguments.overrides}
    base = [setting for setting in RUN if setting.partition("=")[0] not in given]
    base += [*arguments.overrides, f"out={arguments.out}"]
    runs = {
        f"{sparsity} {topup}": [*own, *base, f"sparsity={sparsity}", f"topup={topup}"]
        for sparsity in SPARSITIES
        for topup, own in TOPUPS.items()
        if arguments.only in f"{sparsity} {topup}"
    }
    if arguments.so_far:
        records = finished(runs, Path(arguments.out))
    else:
        found: dict[str, Record] = {}
        for outcome in run_all(runs, arguments.jobs, arguments.threads):
            print(f"{outcome.name}: {outcome.error or 'done'}", flush=True)
            if outcome.record is not None:
                found[outcome.name] = outcome.record
        if len(found) < len(runs):
            raise SystemExit("not all runs succeeded: no tables; start again, or --so-far")
        if arguments.only:
            return
        records = {name: found[name] for name in runs}
    command = " ".join(["python experiments/smollm2.py", *arguments.overrides])
    text = "\n".join(["# SmolLM2-135M", "", f"`{command}`", "", *lines(records), ""])
    print(text)
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    arguments.target.write_text(text)


def finished(runs: Mapping[str, Sequence[str]], out: Path) -> dict[str, Record]:
    """The records that `out` holds of `runs`; those may lack tasks.

    Dense figures that no record has come from the shelf that the runs share.
    """
    found = {}
    for name, overrides in runs.items():
        path = out / f"{identity(composed(overrides))}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text())
    if not found:
        raise SystemExit(f"{out}: no record of these runs")
    first = next(iter(found.values()))
    for path in sorted((out / MEASURED).glob("*.json")):
        kept = json.loads(path.read_text())
        first["metrics"].setdefault(kept["key"]["task"], {"dense": kept["figures"]})
    return found


def lines(records: Mapping[str, Record]) -> Iterator[str]:
    """What was run, both tables, what the search chose, and where it ran."""
    first = next(iter(records.values()))
    seqlen = first["metrics"]["wikitext2"]["seqlen"]
    calibration = first["config"]["calibration"]
    pruner = first["config"]["pruner"]["_target_"].rpartition(".")[2]
    yield (
        f"{first['config']['model']['name']}, {first['config']['model']['dtype']}; pruned with "
        f"{pruner}, {calibration['windows']} windows of {first['data']['calibration']['source']} "
        f"(search: {calibration['search_windows']}; marginal: 64), exact budgets, "
        f"seed {first['config']['seed']}."
    )
    limit = first["config"]["task"]["limit"]
    if limit is not None:
        yield f"**A trial: at most {limit} windows of each text and documents of each task.**"
    yield ""
    yield f"## Perplexity, windows of {seqlen} tokens (± standard error)"
    yield ""
    yield from table(records, TEXTS, "value", "stderr", 2)
    yield ""
    version = first["metrics"]["rte"]["dense"]["version"]["lm_eval"]
    yield f"## Zero-shot accuracy in %, lm-eval {version} (± standard error)"
    yield ""
    yield from table(records, ZERO_SHOT, "acc", "acc_stderr", 1, percent=True)
    yield ""
    sizes = [
        f"{label(task)} {first['metrics'][task]['dense'].get('documents') or windows(first, task)}"
        for task in (*TEXTS, *ZERO_SHOT)
    ]
    yield f"Windows or documents: {', '.join(sizes)}."
    yield ""
    for name, record in records.items():
        yield f"- {name}: {' '.join(costs(record))}"
    yield ""
    where = first["environment"]
    versions = ", ".join(f"{key} {found}" for key, found in where["packages"].items())
    if where.get("float32_products", "highest") != "highest":
        versions += "; matrix products in TF32"
    yield f"On {where['device']}; {versions}; {date.today()}."


def windows(record: Record, task: str) -> int:
    return int(record["metrics"][task]["dense"]["windows"])


def costs(record: Record) -> Iterator[str]:
    """λ's if there was a search, the share of zeros, and the seconds of the stages."""
    report = record["plan"]["report"]
    if "lambda_block" in report:
        yield f"λ = {report['lambda_block']}, λ_r = {report['lambda_row']};"
    yield f"{record['sparsity']['overall']:.4f} zeros;"
    seconds = record["costs"]["seconds"]
    yield f"allocate {seconds['allocate']:.1f} s, prune {seconds['prune']:.1f} s."


def table(
    records: Mapping[str, Record],
    tasks: Sequence[str],
    figure: str,
    spread: str,
    digits: int,
    percent: bool = False,
) -> Iterator[str]:
    """A row for the dense model and each run, a column for each task; accuracies have a mean."""
    columns = [*map(label, tasks), *(["mean"] if percent else [])]
    yield f"| sparsity | top-up | {' | '.join(columns)} |"
    yield "|---|---|" + "---|" * len(columns)
    scale = 100 if percent else 1

    def cells(figures: Sequence[Mapping[str, Any] | None]) -> str:
        shown = [
            f"{scale * found[figure]:.{digits}f} ± {scale * (found[spread] or 0):.{digits}f}"
            if found
            else "–"
            for found in figures
        ]
        known = [scale * found[figure] for found in figures if found]
        mean = f"{sum(known) / len(known):.1f}" if len(known) == len(figures) else "–"
        return " | ".join([*shown, *([mean] if percent else [])])

    first = next(iter(records.values()))
    yield f"| 0 | (dense) | {cells([first['metrics'][task]['dense'] for task in tasks])} |"
    for sparsity, share in SPARSITIES.items():
        for topup in TOPUPS:
            metrics = records.get(f"{sparsity} {topup}", {}).get("metrics", {})
            figures = [metrics.get(task, {}).get("pruned") for task in tasks]
            yield f"| {share} | {topup} | {cells(figures)} |"


if __name__ == "__main__":
    main()
