"""`python -m hpcgan`."""

import sys

from hpcgan.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
