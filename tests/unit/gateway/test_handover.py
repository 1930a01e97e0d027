"""`joulegate serve` executes itself anew with its listening sockets, once."""

import os
import socket
import sys

import pytest

from gateway import handover, start
from gateway.commands import serve, serving
from gateway.commands.serve_options import ServeOptions


class Executed(Exception):
    """What would have taken this process's place."""


@pytest.fixture(autouse=True)
def execute(monkeypatch):
    monkeypatch.delenv("JOULEGATE_SOCKETS", raising=False)

    def execv(path, argv):
        raise Executed(path, argv)

    monkeypatch.setattr(handover.os, "execv", execv)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.skipif(sys.platform == "win32", reason="its exec is another process")
def test_the_same_command_line_is_executed_and_finds_the_sockets(monkeypatch, listener):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "-m", "gateway", "serve"])
    with pytest.raises(Executed) as executed:
        handover.become_server([listener])
    assert executed.value.args == (
        sys.executable,
        [sys.executable, "-X", "dev", "-m", "gateway", "serve"],
    )
    assert listener.get_inheritable()
    (found,) = handover.take_sockets()
    assert found.getsockname() == listener.getsockname()
    found.detach()  # it is the listener's own
    assert handover.take_sockets() is None


def test_a_child_that_inherits_the_environment_is_not_meant(monkeypatch, listener):
    monkeypatch.setenv("JOULEGATE_SOCKETS", f"{os.getpid() + 1}:{listener.fileno()}")
    assert handover.take_sockets() is None
    assert "JOULEGATE_SOCKETS" not in os.environ


def test_whoever_was_not_executed_finds_none():
    assert handover.take_sockets() is None


def test_where_it_cannot_be_executed_it_goes_on(monkeypatch, listener):
    def fail(*_):
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(handover.os, "execv", fail)
    handover.become_server([listener])
    assert handover.take_sockets() is None


def test_started_anew_it_serves_without_the_command_line(monkeypatch, listener):
    monkeypatch.setenv("JOULEGATE_SOCKETS", f"{os.getpid()}:{os.dup(listener.fileno())}")
    served = []
    monkeypatch.setattr(serving, "run_server", lambda sockets: served.append(sockets) or 5)
    monkeypatch.delitem(sys.modules, "gateway.cli", raising=False)
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert ended.value.code == 5
    assert "gateway.cli" not in sys.modules
    ((found,),) = served
    assert found.getsockname() == listener.getsockname()
    found.close()


def test_started_anew_by_way_of_the_command_line_it_serves_too(monkeypatch, listener, tmp_path):
    monkeypatch.setenv("JOULEGATE_SOCKETS", f"{os.getpid()}:{os.dup(listener.fileno())}")
    served = []
    monkeypatch.setattr(serving, "run_server", lambda sockets: served.append(sockets) or 5)
    assert serve.run(ServeOptions(tmp_path / "none.yaml")) == 5
    ((found,),) = served
    found.close()
