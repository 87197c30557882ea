"""`python -m spinscape`."""

from spinscape.cli import main

main()
