"""Run the console script ``neuroal`` as ``python -m neuroal``."""

from neuroal.cli.main import main

if __name__ == "__main__":
    main()
