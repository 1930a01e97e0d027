"""Clients of the compose demo: `load.py URL` asks for each preset and model until it is stopped."""

# ruff: noqa: INP001, S310, T201 - a script

import itertools
import json
import sys
import threading
import time
import urllib.request

NAMES = (
    "auto",
    "auto:accuracy",
    "auto:energy",
    "auto:time",
    "auto:balanced",
    "auto:frugal",
    "phi-3-mini",
    "mistral-7b",
    "falcon-7b",
)
PAUSE_SECONDS = 2.0
TIMEOUT_SECONDS = 60


def ask(url: str, name: str, *, number: int) -> None:
    """Ask once and read the answer to its end; every other answer is streamed."""
    content = f"Tell me about number {number}. " * (1 + number % 7)
    messages = [{"role": "user", "content": content}]
    body = {"model": name, "messages": messages, "stream": number % 2 == 0}
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers=headers
    )
    with urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS) as answer:
        while answer.read(1 << 16):
            pass


def keep_asking(url: str, name: str) -> None:
    """Ask for one name for ever, whatever comes of it."""
    for number in itertools.count():
        try:
            ask(url, name, number=number)
        except OSError as error:
            print(f"{name}: {error}", file=sys.stderr)
        time.sleep(PAUSE_SECONDS)


def main(url: str) -> None:
    """Ask for all of them at once, each in a thread of its own."""
    threads = [threading.Thread(target=keep_asking, args=(url, name)) for name in NAMES]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(sys.argv[1])
