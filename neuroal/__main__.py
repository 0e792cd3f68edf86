"""``python -m neuroal`` is the console script ``neuroal``."""

from neuroal.cli import main

if __name__ == "__main__":
    main()
