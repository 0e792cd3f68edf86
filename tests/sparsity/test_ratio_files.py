"""Tables of ratios are read as spreadsheets write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroal.errors import UserError
from neuroal.sparsity.ratio_files import read_ratios


@pytest.mark.parametrize(
    "line", ["0,mlp.up_proj,0.25", '0, "mlp.up_proj", 0.25', "0 , mlp.up_proj ,.25"]
)
def test_values_may_be_quoted_and_have_spaces_around_them(tmp_path: Path, line: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"block, linear , density\n{line}\n")
    (entry,) = read_ratios(str(path), density=False).entries
    assert (entry.block, entry.linear, entry.row, entry.ratio) == (0, "mlp.up_proj", None, 0.75)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("block,block,ratio\n0,0,0.5", "its header is 'block,block,ratio'; it needs one column"),
        ("block,ratio\n0,0.5\n1,0.5,0.5", "line 3 has not 2 columns"),
        ("block,ratio\n0,0.5\n1", "line 3 has not 2 columns"),
    ],
)
def test_a_table_has_one_value_in_each_of_its_columns(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_ratios(str(path), density=False)
