"""What a backend is called in metrics and logs."""

import pytest

from backends.registry import Backend


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://gpu:8000/phi", "http://gpu:8000/mistral"),
        ("http://gpu:8000", "http://gpu:8000/mistral"),
        ("http://gpu:8000/a/b", "http://gpu:8000/a/c"),
        ("http://gpu:8000", "http://gpu:8001"),
    ],
)
def test_two_servers_have_two_labels(one, other):
    labels = {Backend(one).label, Backend(other).label}
    assert len(labels) == 2
    assert all(label.startswith("gpu:800") for label in labels)


def test_a_server_at_its_root_is_called_by_host_and_port():
    assert Backend("http://gpu:8000").label == "gpu:8000"
