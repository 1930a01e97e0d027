"""Files that would hang or never end are refused before a byte is read."""

import os
import socket

import pytest

from gateway.bounded_file import read_bounded_file


def refusal(path, most_bytes=100):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its strerror is looked at
        read_bounded_file(path, most_bytes)
    return caught.value.strerror


def test_a_regular_file_is_read_whole_up_to_the_bound(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    assert read_bounded_file(path, 100) == b"x" * 100
    assert refusal(path, 99) == "is over 99 bytes"
    (tmp_path / "link").symlink_to(path)
    assert read_bounded_file(tmp_path / "link", 100) == b"x" * 100


def test_what_hangs_or_has_no_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "is a pipe, not a regular file"
    assert refusal("/dev/zero") == "is a device, not a regular file"
    assert refusal(tmp_path) == "Is a directory"
    assert refusal(tmp_path / "none") == "No such file or directory"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        refusal(tmp_path / "s")
