"""What `joulegate …` does; one module a subcommand, each with a `run` that returns the exit code.

0: done; 1: tried and failed; 2: asked for something that cannot be.
"""
