"""`python -m gateway`, the same as `joulegate`."""

from gateway.cli import main

main()
