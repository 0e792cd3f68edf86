"""Tables of ratios are read as spreadsheets write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroal.sparsity.ratio_files import read_ratios


@pytest.mark.parametrize(
    "line", ["0,mlp.up_proj,0.25", '0, "mlp.up_proj", 0.25', "0 , mlp.up_proj ,.25"]
)
def test_values_may_be_quoted_and_have_spaces_around_them(tmp_path: Path, line: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"block, linear , density\n{line}\n")
    (entry,) = read_ratios(str(path), density=False).entries
    assert (entry.block, entry.linear, entry.row, entry.ratio) == (0, "mlp.up_proj", None, 0.75)
