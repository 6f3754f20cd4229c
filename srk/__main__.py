"""`python -m srk` is the command `srk`; torchrun starts it so."""

from srk.cli import main

main()
