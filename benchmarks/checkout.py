"""`import checkout` makes the bnhead of this checkout importable, whether it is installed or not."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
