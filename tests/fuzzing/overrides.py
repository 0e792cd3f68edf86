"""Strategies for command lines: valid keys with odd values, odd keys, flags and sweeps."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from neuroal.config import schema

OUTPUTS = ("out", "save.model", "save.plan")
"""Keys of what a run writes: their values stay inside the current folder."""
SLOW = ("calibration.windows", "calibration.search_windows")
"""Keys for which a large number is no mistake, but takes long."""
METHOD_KEYS = (
    *("pruner.block_size", "pruner.damping", "pruner._target_", "pruner.foo", "pruner.iterations"),
    *("topup.path", "topup.values", "topup.spread", "topup._target_", "topup.step", "topup.start"),
    *("refine.cycles", "refine._target_", "topup.outlier_factor", "topup.block_candidates"),
)
HYDRA_KEYS = (
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.name", "hydra.mode"),
    *("hydra.sweeper", "hydra.sweeper.params", "hydra.launcher", "hydra.output_subdir", "hydra"),
    *("hydra.verbose", "hydra/launcher", "hydra/sweeper", "hydra.searchpath", "hydra.job.num"),
    *("hydra.job_logging", "hydra.callbacks", "hydra.job.chdir", "hydra/job_logging", "experiment"),
)
OPTIONS: dict[str, tuple[str, ...]] = {
    "model": ("zoo/opt", "hf", "gguf", "zoo", "zoo/nothing", "smollm2"),
    "pruner": ("magnitude", "wanda", "multiflow", "sparsegpt", "wand", "random"),
    "topup": ("uniform", "owl", "dlp", "plan", "unifrom"),
    "refine": ("none", "dsnot", "null"),
    "sparsity": ("s50", "s70", "2of4", "s101", "0.7"),
    "calibration": ("builtin", "text", "c4", "wikitext2", "nothing"),
    "task": ("none", "lm", "paper", "builtin", "nothing"),
    "logger": ("none", "nothing"),
}
WORDS = (
    *("null", "true", "false", "yes", "1", "0", "-1", "0.5", "1.0", "1e3", "1_0", "nan", "inf"),
    *("-inf", "1e400", ".5", "5.", "0x10", "00012", "'1'", '"a"', "''", "{}", "[]", "[[1],[2]]"),
    *("{a:1}", "{a:{b:[1]}}", "[null]", "[true,1.5]", "[1e3]", "???", "'???'", "${seed}", "${x}"),
    *("${oc.env:HOME}", "${oc.env:NOTHING}", "${hydra:job.num}", "${out", "$(id)", "`id`", "a;b"),
    *("a|b", "a&b", "a>b", "a b", "a,b", "1,2", "a=b", "[a", "a]", "(a)", "a:b", "a#b", "~", "~/x"),
    *("..", "../../etc", ".", "./x", "./Größe", "./a,b", "epoch=3", "日本語", "é", "a\tb", "a\nb"),
    *("os.system", "os.getcwd", "builtins.exec", "neuroal.topups.uniform.Uniform", "a..b", ".a"),
    *("float32", "cuda:99", "disk", "blocks", "wandb", "reference", "window", "range(1,3)"),
    *("choice(1,2)", "int(a)", "interval(0,1)", "glob(*)", "\\", "\\,", "'", '"', "%s", "{0}"),
    *("/dev/null", "/dev/zero", "/proc/self/mem", "y" * 300, "y" * 5000, "[" * 200, "{a:" * 100),
    *("9" * 30, "9" * 5000, "plan.json", "table.csv", "text.txt", "model", "runs"),
)


def _free(key: str, text: str) -> str:
    """Return `text` without what would let an output leave the current folder."""
    if key.lstrip("+~") in OUTPUTS or key.lstrip("+~").startswith("hydra"):
        text = text.replace("/", "_").replace("..", "__").replace("~", "-")
        return re.sub(r"\$\{oc[^}]*\}", "x", text)
    return text


def values(key: str) -> st.SearchStrategy[str]:
    """Return values of `key`: its options, words that are special somewhere, or any text."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
    numbers = st.integers() | st.integers(-3, 9) | st.floats()
    if key in SLOW:
        numbers = st.integers(-3, 9) | st.integers(2**21)
    choices: list[st.SearchStrategy[Any]] = [st.sampled_from(WORDS), text, numbers.map(str)]
    if key in OPTIONS:
        choices += [st.sampled_from(OPTIONS[key])] * 2
    return st.one_of(choices).map(lambda value: _free(key, str(value)))


KEYS = (*(key for key, _ in schema.leaves()), *OPTIONS, *METHOD_KEYS, *HYDRA_KEYS)


@st.composite
def overrides(draw: st.DrawFn) -> str:
    """One override; mostly a known key with a value."""
    key = draw(st.sampled_from(KEYS))
    value = draw(values(key))
    form = draw(st.integers(0, 19))
    if form == 0:
        key = draw(st.sampled_from(["+", "++", "~"])) + key
    elif form == 1:
        key = draw(st.text(max_size=12).filter(lambda text: "\0" not in text)).replace("/", "_")
        return _encodable(key if draw(st.booleans()) else f"{key}={draw(st.sampled_from(WORDS))}")
    elif form == 2:
        key = f"{key}@{draw(st.sampled_from(['', 'x', 'model', '_global_']))}"
    return f"{key}={value}"


def _encodable(text: str) -> str:
    """Return `text` without what no command line of a shell could hold, or names other folders."""
    return text.encode("utf-8", "ignore").decode().replace("out=", "x=").replace("save.", "x.")


FLAGS = ("-m", "--cfg=job", "--resolve", "--info", "-x", "--", "-p=model", "-cn=x", "-cd=x", "-r")


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """One to three overrides, sometimes with a flag."""
    arguments = draw(st.lists(overrides(), min_size=1, max_size=3))
    if draw(st.integers(0, 4)) == 0:
        arguments.insert(0, draw(st.sampled_from(FLAGS)))
    return arguments
