"""``python -m diffsplit``: the command line."""

from diffsplit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
