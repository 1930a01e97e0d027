"""`python -m tests.fuzz`: bytes from elsewhere, mutated for as long as asked, into every reader.

Exits 1 at a find, which is written into the corpus so that each later run begins with it.
`--atheris TARGET` lets coverage lead instead (`pip install atheris`, Python up to 3.13); what
libFuzzer takes may follow, as `-max_total_time=600`.
"""

import argparse
import hashlib
import logging
import random
import sys
import tempfile
import time
import traceback

from tests.fuzz.mutations import CORPUS, list_seeds, mutate_bytes, mutate_json

NAMES = sorted(path.name for path in CORPUS.iterdir())


def fuzz_target(name: str, seconds: float, seed: int) -> bool:
    """Feed a target for so long; tell whether nothing was found."""
    from tests.fuzz.targets import TARGETS  # only now: atheris has to be there before

    drawn, seeds, count = random.Random(seed), list_seeds(name), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutate_bytes(drawn.choice(seeds), drawn.choice(seeds), drawn)
        count += 1
        try:
            TARGETS[name](data)
        except Exception:  # noqa: BLE001 - whatever it is, it is a find
            path = CORPUS / name / f"found_{hashlib.sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            traceback.print_exc()
            print(f"{name}: {path} after {count}")
            return False
    print(f"{name}: {count} examples, nothing found", flush=True)
    return True


def run_atheris(name: str, arguments: list[str]) -> None:
    """Let coverage lead; does not return."""
    import atheris

    with atheris.instrument_imports(include=["backends", "gateway", "tests.fuzz"]):
        from tests.fuzz.targets import TARGETS
    seeds = str(CORPUS / name)
    # What covers more is kept while it runs; what was found goes where each later run begins.
    with tempfile.TemporaryDirectory() as kept:
        finds = f"-artifact_prefix={seeds}/found_"

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            drawn = random.Random(seed)
            found = mutate_json(data, drawn) if seed % 2 else None
            return atheris.Mutate(data, most) if found is None or len(found) > most else found

        asked = [sys.argv[0], kept, seeds, finds, *arguments]
        atheris.Setup(asked, TARGETS[name], custom_mutator=mutate)
        atheris.Fuzz()


def main() -> int:
    """Read the arguments, fuzz, and say what came of it."""
    logging.disable()  # what a reader warns of is no find
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--target", choices=NAMES, help="one of them")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--atheris", choices=NAMES)
    asked, more = parser.parse_known_args()
    if asked.atheris:
        run_atheris(asked.atheris, more)
    print(f"seed {asked.seed}")
    names = [asked.target] if asked.target else NAMES
    well = [fuzz_target(name, asked.seconds, asked.seed) for name in names]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
