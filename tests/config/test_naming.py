"""Names: from a configuration back to the options of the command line."""

from __future__ import annotations

from typing import Any

import pytest

from neuroal.config.naming import competitor, method_name, model_name, sparsity_name
from neuroal.config.schema import conf_dir
from neuroal.tables.labels import label
from tests.synthetic import method, record

OPTIONS = [
    (group, path.stem)
    for group in ("pruner", "topup", "refine")
    for path in sorted((conf_dir() / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_has_its_own_name(group: str, option: str) -> None:
    assert method_name(group, method(group, option)) == option


def test_parameters_that_differ_from_the_yaml_are_listed_in_order() -> None:
    node = method("topup", "neuroal") | {"step": "block", "criterion": "output_kl"}
    assert method_name("topup", node) == 'neuroal(criterion="output_kl", step="block")'.replace(
        '"', ""
    )


def test_a_preset_is_named_by_its_value() -> None:
    node = method("topup", "marginal")
    assert method_name("topup", node | {"preset": "fast"}) == "marginal(fast)"
    fewer = node | {"preset": "best", "momentum": 0.9, "band": 0.2}
    assert method_name("topup", fewer) == "marginal(best, band=0.2, momentum=0.9)"
    assert label("marginal(fast)") == "Equal marginals (fast)"


def test_records_without_a_preset_have_the_first_one() -> None:
    node = {
        "_target_": "neuroal.topups.marginal.EqualMarginals",
        **{"step": "both", "objective": "kl", "linear_iterations": None, "row_iterations": None},
        **{"linear_rate": 0.03, "row_rate": 0.02, "windows": 8, "band": 0.1, "momentum": 0.8},
        **{"averaged": 0.4, "second_order": 0.0, "rerank": 0, "start": None},
    }
    assert method_name("topup", node) == "marginal(first)"
    other = node | {"step": "row", "momentum": 0.5}
    assert method_name("topup", other) == "marginal(first, momentum=0.5, step=row)"


def test_a_class_without_a_yaml_is_named_by_its_class_name() -> None:
    assert method_name("topup", {"_target_": "mine.Better", "power": 2}) == "better(power=2)"
    assert method_name("refine", None) == "none"


def test_a_competitor_is_a_topup_with_a_refinement() -> None:
    assert competitor(record(competitor="uniform+dsnot").config) == "uniform+dsnot"
    assert competitor(record(competitor="owl").config) == "owl"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"ratio": 0.6, "keep": None, "of": None}, "60 %"),
        ({"ratio": 0.655, "keep": None, "of": None}, "65.5 %"),
        ({"ratio": 0.5, "keep": 2, "of": 4}, "2:4"),
        ({"ratio": 0.7, "keep": None, "of": 8}, "70 %, N:8"),
    ],
)
def test_sparsity_is_a_percentage_or_a_pattern(values: dict[str, Any], name: str) -> None:
    assert sparsity_name({"sparsity": values}) == name


def test_a_model_without_a_name_is_named_by_path_and_revision() -> None:
    model = record().config["model"]
    assert model_name({"model": model}) == "zoo/llama"
    nameless = dict(model) | {"name": None, "path": "org/model", "revision": "abc"}
    assert model_name({"model": nameless}) == "org/model@abc"
