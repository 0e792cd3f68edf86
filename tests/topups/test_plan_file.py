"""Plans from files match the model, by block, linear or row, and the target sparsity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuroal.errors import UserError
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.budget import Rules
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.owl import OWL
from neuroal.topups.plan_file import PlanFile
from tests.small_models import allocation_context, check, tiny_llama

DECODER = tiny_llama()
KEYS = [linear.key for linear in DECODER]
BLOCKS = [0.5, 0.55, 0.65, 0.7]


def ratios_of(path: Path, **settings: str) -> dict[str, list[float] | float]:
    topup = PlanFile(str(path), **settings)
    check(topup, Wanda(), 0.6, Rules.EXACT)
    return topup.allocate(allocation_context(DECODER)).plan.to_dict()["ratios"]


@pytest.mark.parametrize("suffix", ["json", "npy", "txt", "csv"])
def test_a_list_of_blocks_can_have_any_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"list.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(BLOCKS))
    elif suffix == "npy":
        np.save(path, np.array(BLOCKS))
    else:
        path.write_text(("\n" if suffix == "txt" else ",").join(map(str, BLOCKS)))
    assert ratios_of(path) == {key: BLOCKS[int(key[0])] for key in KEYS}


def test_densities_saved_by_owl_become_sparsities(tmp_path: Path) -> None:
    path = tmp_path / "owl.npy"
    plan = OWL().allocate(allocation_context(DECODER)).plan
    np.save(path, [1 - float(plan.ratios[f"{block}.mlp.up_proj"]) for block in range(4)])
    assert ratios_of(path, values="density") == pytest.approx(plan.to_dict()["ratios"])


def test_a_list_can_have_one_entry_per_linear_or_per_row(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([0.6] * len(KEYS)))
    assert ratios_of(path) == dict.fromkeys(KEYS, 0.6)
    rows = [linear.rows for linear in DECODER]
    path.write_text(json.dumps(np.tile([0.5, 0.7], sum(rows) // 2).tolist()))
    assert ratios_of(path)["1.mlp.up_proj"] == [0.5, 0.7] * 24


TABLES = {
    "block,ratio": [f"{block},{BLOCKS[block]}" for block in range(4)],
    "block,density": [f"{block},{1 - BLOCKS[block]}" for block in range(4)],
    "linear,sparsity": [f"{key},{BLOCKS[int(key[0])]}" for key in KEYS],
    "block, linear, ratio": [f"{k[0]}, {k[2:]}, {BLOCKS[int(k[0])]}" for k in KEYS],
}


@pytest.mark.parametrize("header", TABLES)
def test_a_table_can_have_one_line_per_block_or_per_linear(tmp_path: Path, header: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *TABLES[header]]))
    assert ratios_of(path) == pytest.approx({key: BLOCKS[int(key[0])] for key in KEYS})


def test_a_table_can_have_one_line_per_row(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    lines = [
        f"{linear.key},{row},{0.5 + 0.2 * (row % 2)}"
        for linear in DECODER
        for row in reversed(range(linear.rows))
    ]
    path.write_text("\n".join(["linear,row,ratio", *lines]))
    assert ratios_of(path)["2.mlp.down_proj"] == [0.5, 0.7] * 16
    path.write_text("\n".join(["linear,row,ratio", *lines[1:]]))
    with pytest.raises(UserError, match="one for each row 0 … 31"):
        ratios_of(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[0.6, 0.6, 0.6]", "3 numbers; the model has 4 blocks, 28 prunable linears and 1024 rows"),
        ("[60, 60, 60, 60]", "60 is not between 0 and 1; use shares"),
        ("[0.4, 0.4, 0.4, 0.4]", "topup.values=density"),
        ("[0.7, 0.7, 0.7, 0.7]", r"have mean 0\.7; set sparsity\.ratio=0\.7"),
        ("[]", "it is empty"),
        ("block,ratio\n0,0.6\n0,0.6", r"'0\.self_attn\.q_proj' is listed twice"),
        ("block,ratio\n9,0.6", "'block 9' is not in the model"),
        ("linear,ratio\n0.mlp.up,0.6", r"did you mean '0\.mlp\.up_proj'"),
        ("block,ratio\n0,0.6", r"'1\.self_attn\.q_proj' needs one ratio"),
        ("block,colour,ratio\n0,red,0.6", "unknown column 'colour'"),
        ("row,ratio\n0,0.6", "'block' or 'linear'"),
        ("block,ratio\nnone,0.6", "not a list or table of ratios"),
        ("", "not a list or table of ratios"),
        ('{"a": 1}', "not a saved plan"),
    ],
)
def test_errors_name_what_does_not_match(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        ratios_of(path)


def test_unsupported_ratios_per_row_are_rejected_before_a_run(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = NeuroAL(block_candidates=[0.1], row_candidates=[0.1]).allocate(
        allocation_context(DECODER)
    )
    path.write_text(json.dumps(plan.plan.to_dict()))
    check(PlanFile(str(path)), SparseGPT(), 0.6, Rules.EXACT)
    with pytest.raises(UserError, match="rules=exact"):
        check(PlanFile(str(path)), SparseGPT(), 0.6, Rules.REFERENCE)
    with pytest.raises(UserError, match="one N for a whole linear"):
        check(PlanFile(str(path)), Wanda(), 0.6, Rules.EXACT, 4)
    with pytest.raises(UserError, match="no such file"):
        check(PlanFile(str(tmp_path / "none.csv")), Wanda(), 0.6, Rules.EXACT)


def test_a_list_by_row_is_refused_where_ratios_per_row_are(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([0.6] * sum(linear.rows for linear in DECODER)))
    context = allocation_context(DECODER, SparseGPT(), rules=Rules.REFERENCE)
    with pytest.raises(UserError, match="rules=exact"):
        PlanFile(str(path)).allocate(context)


def test_a_plan_that_exceeds_the_bounds_is_clipped_when_it_is_made_and_saved(
    tmp_path: Path,
) -> None:
    path = tmp_path / "plan.json"
    context = allocation_context(DECODER, sparsity=0.9)
    plan = NeuroAL(step="block", block_candidates=[0.25]).allocate(context).plan
    assert max(plan.means().values()) == 1
    path.write_text(json.dumps(plan.to_dict(), sort_keys=True))
    again = PlanFile(str(path)).allocate(context).plan
    assert again.to_dict() == plan.to_dict()


@pytest.mark.parametrize("saved", [True, False], ids=["saved plan", "list"])
def test_ratios_slightly_outside_are_clipped_with_one_line(tmp_path: Path, saved: bool) -> None:
    path = tmp_path / "plan.json"
    ratios = [-0.5, 0.8, 0.9, 1.2]
    by_linear = {key: ratios[int(key[0])] for key in KEYS}
    path.write_text(json.dumps({"sparsity": 0.6, "ratios": by_linear} if saved else ratios))
    topup = PlanFile(str(path))
    with pytest.warns(UserWarning, match=r"between -0\.5 and 1\.2 are outside") as caught:
        plan = topup.allocate(allocation_context(DECODER, sparsity=0.675)).plan
    assert len(caught) == 1
    assert plan.ratios["0.mlp.up_proj"] == 0
    assert plan.ratios["3.mlp.up_proj"] == 1


@pytest.mark.parametrize(
    "value", ["true", '"0.6"', "NaN", "Infinity", "-0.6", "1.6", "60", "[0.6]"]
)
@pytest.mark.parametrize("form", ["linear", "row", "list", "sparsity"])
def test_a_value_that_is_no_share_is_refused_in_one_line(
    tmp_path: Path, value: str, form: str
) -> None:
    path = tmp_path / "plan.json"
    ratios = dict.fromkeys(KEYS, "0.6")
    ratios["1.mlp.up_proj"] = {"linear": value, "row": f"[{value}, 0.6]"}.get(form, "0.6")
    if (form, value) == ("linear", "[0.6]"):
        pytest.skip("a list of one row")
    entries = ", ".join(f'"{key}": {ratio}' for key, ratio in ratios.items())
    sparsity = value if form == "sparsity" else "0.6"
    saved = f'{{"sparsity": {sparsity}, "ratios": {{{entries}}}}}'
    path.write_text(f"[0.6, {value}, 0.6, 0.6]" if form == "list" else saved)
    with pytest.raises(UserError) as raised:
        ratios_of(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
