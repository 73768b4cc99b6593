"""Trains one backbone with one head: `python train.py --head=bn_fc`. The same as `bnhead train`."""

import sys

from bnhead.training import command

if __name__ == "__main__":
    sys.exit(command.main(sys.argv[1:], program="train.py"))
