"""Trains one backbone with one head: `python train.py --head=bn_fc`. The same as `bnhead train`."""

import sys


def main() -> int:
    """Runs it and returns the exit status."""
    try:
        from bnhead.cli import train

        return train.main(sys.argv[1:], program="train.py")
    except KeyboardInterrupt:  # while it is being imported
        print("train.py: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
