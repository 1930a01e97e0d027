"""`python -m gateway`, the same as `joulegate`."""

from gateway.start import main

main()
