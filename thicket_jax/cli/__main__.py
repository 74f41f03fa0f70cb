"""`python -m thicket_jax.cli`."""

import sys

from thicket_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
