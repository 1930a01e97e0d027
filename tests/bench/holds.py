"""`python -m tests.bench holds`: idle connections and live streams, held by one worker at once.

Each idle connection has had an answer before the streams begin, and must get another when they have
ended, on the same connection. Exits 1 where one was closed, or a stream was broken. Streams are
slow, so that what is tried is how many there are and not how fast one core is.
"""

import argparse
import contextlib
import os
import resource
import socket
from typing import Final

from tests.bench import load, machine, serving
from tests.bench.report import say

_INTERVAL_SECONDS: Final = 0.2
_TOKENS: Final = 30
_SPARE_FILES: Final = 500
_PATIENCE_SECONDS: Final = 30.0
_ASK: Final = b"GET /health HTTP/1.1\r\nhost: bench\r\n\r\n"
_END: Final = b'{"status":"ok"}'


def count_lost(connections: list[socket.socket]) -> int:
    """Ask over each connection; return how many did not get the whole of a 200."""
    asked = [_send(connection) for connection in connections]
    return sum(
        not (sent and _read(connection))
        for connection, sent in zip(connections, asked, strict=True)
    )


def _send(connection: socket.socket) -> bool:
    try:
        connection.sendall(_ASK)
    except OSError:
        return False
    return True


def _read(connection: socket.socket) -> bool:
    answer = b""
    try:
        while not answer.endswith(_END):
            piece = connection.recv(4096)
            if not piece:
                return False
            answer += piece
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 200 ")


def main(arguments: list[str]) -> int:
    """Hold them, print what was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench holds", description=__doc__)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args(arguments)
    machine.allow_many_files()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The gateway has a connection to a backend for each stream as well.
    wanted = given.idle + 2 * given.streams + _SPARE_FILES
    if files < wanted:
        parser.error(f"{wanted:,} open files are needed, {files:,} are allowed (ulimit -n)")
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    with (
        serving.upstream(cores.upstream, _INTERVAL_SECONDS) as ports,
        serving.gateway(cores.gateway, ports) as gateway,
        contextlib.ExitStack() as stack,
    ):
        say(f"{given.idle:,} idle connections")
        idle = []
        for _ in range(given.idle):
            made = socket.create_connection((serving.HOST, gateway.port), _PATIENCE_SECONDS)
            idle.append(stack.enter_context(made))
        refused = count_lost(idle)
        say(f"{given.streams:,} streams")
        meter = serving.Meter(gateway.pid, cores.gateway)
        sample = load.streams(
            gateway.port, given.streams, _TOKENS, _INTERVAL_SECONDS, given.seconds, meter
        )
        lost = count_lost(idle)
        resident = machine.memory_mb(gateway.pid)[0]
    rate = sample.tokens / sample.seconds
    print(f"idle connections: {given.idle:,}, refused at first {refused}, lost by the end {lost}")
    print(
        f"streams: {given.streams:,}, broken {sample.broken}; "
        f"tokens/s {rate:,.0f} of {given.streams / _INTERVAL_SECONDS:,.0f}"
    )
    print(
        f"resident {resident:.0f} MB; CPU {meter.cpu_share:.0%} of a core, "
        f"others {meter.others_share:.0%}"
    )
    return int(bool(refused or lost or sample.broken or not sample.tokens))
