"""`python -m fastcutpaste` is the command line."""

from fastcutpaste.cli import main

main()
