"""The command `srk`, and `python -m srk`; torchrun starts it so."""

import sys

from srk._version import __version__


def main() -> None:
    """The command line; the version is told without loading PyTorch."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"srk {__version__}\n")
        return
    from srk.cli import main as run

    run()


if __name__ == "__main__":
    main()
