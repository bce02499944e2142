"""``python -m ufm``."""

from ufm.cli import main

main()
