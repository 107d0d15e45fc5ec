"""`python -m foveal` is the command `foveal`."""

import sys

from foveal.cli import main

if __name__ == "__main__":
    code = main()
    # An interrupt that fell into code run from a string (named tuples and data classes are) leaves a mark in CPython,
    # which would then end by the signal and not by our exit code. Running any such code clears it.
    exec("pass")
    sys.exit(code)
