"""The runs behind results/marginal.md: study → name of a run → what it sets beyond `BASE`."""

from __future__ import annotations

from pathlib import Path

from neuroal.data.resolve import find_rows

BASE = [
    "seed=0",
    "model=smollm2-135m-instruct-q4",
    "model.dtype=float32",
    "pruner=wanda",
    "sparsity=s70",
    "calibration=c4_sample",
    "calibration.windows=64",
    "calibration.search_windows=64",
    "calibration.seqlen=512",
    "task.names=[wikitext2,ptb,c4_sample]",
    "task.seqlen=512",
    "task.limit=64",
]
EIGHT = "calibration.search_windows=8"
TOPUPS: dict[str, list[str]] = {
    "uniform": ["topup=uniform"],
    "owl": ["topup=owl"],
    "alpha": ["topup=alpha"],
    "dlp": ["topup=dlp"],
    "atp, 8 windows": ["topup=atp", EIGHT],
    "neuroal block, 8 windows": ["topup=neuroal", "topup.step=block", EIGHT],
    "neuroal both, 8 windows": ["topup=neuroal", EIGHT],
    "neuroal both, 64 windows": ["topup=neuroal"],
    "neuroal both by output_kl, 8 windows": ["topup=neuroal", "topup.criterion=output_kl", EIGHT],
    "neuroal both by perplexity, 8 windows": [
        "topup=neuroal",
        "topup.criterion=perplexity",
        EIGHT,
    ],
    "evolve linears": ["topup=evolve"],
    "evolve blocks": ["topup=evolve", "topup.unit=block"],
    "marginal linear": ["topup=marginal", "topup.step=linear"],
    "marginal row": ["topup=marginal", "topup.step=row"],
    "marginal both": [
        "topup=marginal",
        "topup.linear_iterations=25",
        "topup.row_iterations=60",
    ],
}
ON_ZOO = "model=zoo/llama"
AT_70 = (
    "evolve blocks",
    "neuroal both by output_kl, 8 windows",
    "neuroal both by perplexity, 8 windows",
)
"""Not tried at other sparsities."""
MARGINAL = TOPUPS["marginal both"]
NEUROAL = TOPUPS["neuroal both, 64 windows"]
RATIOS = (50, 60, 70, 80)
SPARSEGPT = ["topup=neuroal", "pruner=sparsegpt", EIGHT]
COMPARED = ("uniform", "neuroal both, 64 windows", "marginal both")
ITERATIONS = ((5, 12), (12, 30), (25, 60), (50, 120), (100, 240))


def _with(name: str, *overrides: str) -> list[str]:
    return [*TOPUPS[name], *overrides]


def _calibrated_on(text: str) -> list[str]:
    return ["calibration=text", f"calibration.path=TEXTS/{text}.txt"]


ABLATION: dict[str, list[str]] = {
    "as it is": MARGINAL,
    **{
        f"objective {o}": [*MARGINAL, f"topup.objective={o}"]
        for o in ("cross_entropy", "block_error")
    },
    **{f"band {band}": [*MARGINAL, f"topup.band={band}"] for band in (0.01, 0.03, 0.3, 1.0)},
    **{f"momentum {m}": [*MARGINAL, f"topup.momentum={m}"] for m in (0.0, 0.5, 0.9)},
    **{f"averaged {a}": [*MARGINAL, f"topup.averaged={a}"] for a in (0.02, 0.2, 0.8)},
    **{
        f"rates x {x}": [
            *MARGINAL,
            f"topup.linear_rate={0.03 * x:g}",
            f"topup.row_rate={0.02 * x:g}",
        ]
        for x in (0.5, 2, 4)
    },
    **{f"rerank every {n}": [*MARGINAL, f"topup.rerank={n}"] for n in (10, 20)},
    **{f"second order {c}": [*MARGINAL, f"topup.second_order={c}"] for c in (0.1, 1.0)},
    "80 rows from NeuroAL's plan": _with("marginal row", "topup.start=TEXTS/neuroal.json"),
    "minibatches of 4": [*MARGINAL, "topup.windows=4"],
    "minibatches of 16": [*MARGINAL, "topup.windows=16"],
}
"""One thing of the method changed at a time."""


STUDIES: dict[str, dict[str, list[str]]] = {
    "quality": {
        f"{ratio} %: {name}": _with(name, f"sparsity=s{ratio}")
        for ratio in RATIOS
        for name in TOPUPS
        if ratio == 70 or name not in AT_70
    },
    "pruners": {
        **{
            f"{pruner}: {name}": _with(name, f"pruner={pruner}")
            for pruner in ("magnitude", "multiflow", "sparsegpt")
            for name in COMPARED
        },
        "sparsegpt: neuroal block, 8 windows": [*SPARSEGPT, "topup.step=block"],
        "sparsegpt: neuroal both, 8 windows": [*SPARSEGPT, "topup.rows_with_updates=true"],
    },
    "generality": {
        **{f"seed {seed}: {n}": _with(n, f"seed={seed}") for seed in (0, 1, 2) for n in COMPARED},
        **{
            f"calibrated on {text}: {name}": _with(name, *_calibrated_on(text))
            for text in ("wikitext2", "ptb")
            for name in COMPARED
        },
        **{
            f"{count} windows: marginal both": [
                *MARGINAL,
                f"calibration.search_windows={count}",
                f"calibration.windows={max(count, 64)}",
            ]
            for count in (8, 16, 32, 64, 128)
        },
    },
    "iterations": {
        f"{linear} + {row} iterations": [
            *MARGINAL,
            f"topup.linear_iterations={linear}",
            f"topup.row_iterations={row}",
        ]
        for linear, row in ITERATIONS
    },
    "ablation": ABLATION,
    "zoo": {
        name: [ON_ZOO, *overrides]
        for name, overrides in {
            "uniform": TOPUPS["uniform"],
            "neuroal both, 64 windows": [*NEUROAL, "save.plan=TEXTS/zoo.json"],
            "80 rows": TOPUPS["marginal row"],
            **ABLATION,
            **{f"seed {seed}": [*MARGINAL, f"seed={seed}"] for seed in (1, 2)},
            "80 rows from NeuroAL's plan": _with("marginal row", "topup.start=TEXTS/zoo.json"),
        }.items()
    },
    "seconds": {name: TOPUPS[name] for name in TOPUPS},
}
TIMED = ("iterations", "seconds")
"""Studies whose runs have the device for themselves."""
# The ablation starts one of its runs from this plan.
STUDIES["quality"]["70 %: neuroal both, 64 windows"].append("save.plan=TEXTS/neuroal.json")


def texts_of(data: Path, out: Path) -> None:
    """Write texts to calibrate on that are not evaluated on, for sets without a training split.

    WikiText-2: the last two thirds of the test split (the windows evaluated are in its first
    seventh). PTB: the validation split.
    """
    folder = out / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    rows = find_rows("wikitext2", "test", str(data)).rows
    text = "\n\n".join(row["text"] for row in rows[len(rows) // 3 :])
    (folder / "wikitext2.txt").write_text(text)
    rows = find_rows("ptb", "validation", str(data)).rows
    (folder / "ptb.txt").write_text(" ".join(row["sentence"] for row in rows))
