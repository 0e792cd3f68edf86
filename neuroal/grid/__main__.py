"""Run ``neuroal-grid`` as ``python -m neuroal.grid``, without the console script."""

from neuroal.cli.grid import main

main()
