"""``python -m sparsecore``: the command line."""

from sparsecore.cli import main

if __name__ == "__main__":
    main()
