"""``python -m neuroal.grid`` is ``neuroal-grid``, where the script is not on the path."""

from neuroal.cli import main_grid

main_grid()
