"""The fault matrix has faults: no kind is a proper answer in another name, whatever is asked."""

import pytest

from tests.faults.kinds import KINDS
from tests.faults.typed_kinds import read_request

TURN = {"messages": [{"role": "user", "content": "word"}]}
ASKED = {
    "/v1/chat/completions": TURN,
    "/v1/responses": {"input": "word", "request_id": "resp_1"},
    "/v1/messages": TURN,
}


def asked(path, *, stream):
    return read_request(path, {"model": "m", "stream": stream, **ASKED[path]}, "sent")


@pytest.mark.parametrize("path", ASKED)
def test_every_kind_is_a_fault_of_every_api(path):
    modes = [asked(path, stream=stream) for stream in (False, True)]
    proper = {
        name
        for name, script in KINDS.items()
        if all(script(one) == KINDS["proper"](one) for one in modes)
    }
    assert proper == {"proper"}


@pytest.mark.parametrize("path", ASKED)
def test_the_large_ones_are_large(path):
    unary, streamed = (asked(path, stream=stream) for stream in (False, True))
    for name, one in {"a body of 20 MB": unary, "a frame of 20 MB": streamed}.items():
        pieces = KINDS[name](one)
        assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) > 20 << 20
