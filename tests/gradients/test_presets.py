"""Presets of equal marginals differ in their iterations alone; ``first`` is version 0.1."""

from __future__ import annotations

import dataclasses

import pytest

from neuroal.gradients.presets import PRESETS, Preset


@pytest.mark.parametrize(
    ("name", "iterations", "before_rows"), [("fast", 16, 5), ("default", 48, 20), ("best", 96, 40)]
)
def test_presets_differ_in_their_iterations_alone(
    name: str, iterations: int, before_rows: int
) -> None:
    preset = PRESETS[name]
    assert (preset.alone, preset.both) == ((iterations, iterations), (before_rows, iterations))
    default = PRESETS["default"]
    assert dataclasses.replace(preset, alone=default.alone, both=default.both) == default
    assert (default.start, default.step) == ("fisher", "row")
    assert (default.momentum, default.second_order) == (0.5, 1.0)


def test_first_has_the_settings_of_version_0_1() -> None:
    assert PRESETS["first"] == Preset("uniform", "both", (40, 80), (25, 60), 0.8, 0.0, prunings=0)


def test_only_the_parts_of_the_step_have_iterations() -> None:
    preset = dataclasses.replace(PRESETS["default"], alone=(1, 2), both=(3, 4))
    assert preset.iterations("linear") == (1, 0)
    assert preset.iterations("row") == (0, 2)
    assert preset.iterations("both") == (3, 4)


def test_prunings_are_spread_over_the_iterations_of_a_step() -> None:
    preset = dataclasses.replace(PRESETS["default"], prunings=4)
    assert [preset.interval(iterations) for iterations in (3, 8, 10)] == [1, 2, 3]
    assert dataclasses.replace(preset, prunings=0).interval(10) == 0
