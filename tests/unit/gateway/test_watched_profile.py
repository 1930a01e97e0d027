"""A profile file that changes: noticed through symlinks, and a bad change refused once."""

import pytest

from gateway.profile import CostProfile, ProfileError
from gateway.watched_profile import WatchedProfileFile
from tests.unit.gateway.test_profile import text, tree


def put(folder, stamp, value):
    """Do as kubelet does: a new dated folder, and `..data` swapped to it by rename."""
    dated = folder / f"..{stamp}"
    dated.mkdir()
    (dated / "profile.json").write_bytes(text(value))
    link = folder / "..data_tmp"
    link.symlink_to(dated.name)
    link.rename(folder / "..data")


def test_a_config_map_swap_is_noticed(tmp_path):
    put(tmp_path, "2026_1", tree())
    path = tmp_path / "profile.json"
    path.symlink_to("..data/profile.json")
    watched = WatchedProfileFile(path)
    assert watched.current_profile.get_model("m").accuracy.default == 0.5
    assert not watched.has_changed()
    # Same size: only the inode and the time tell.
    put(tmp_path, "2026_2", tree(accuracy={"default": 0.7}))
    assert watched.has_changed()
    assert watched.read_profile().get_model("m").accuracy.default == 0.7
    assert not watched.has_changed()


def test_a_bad_change_is_reported_once(tmp_path):
    path = tmp_path / "profile.json"
    path.write_bytes(text(tree()))
    watched = WatchedProfileFile(path)
    path.write_bytes(b"{}")
    assert watched.has_changed()
    with pytest.raises(ProfileError, match="no version"):
        watched.read_profile()
    assert not watched.has_changed()
    assert watched.current_profile.get_model("m").accuracy.default == 0.5


def test_a_file_that_goes_and_comes_back_is_noticed_both_times(tmp_path):
    path = tmp_path / "profile.json"
    path.write_bytes(text(tree()))
    watched = WatchedProfileFile(path)
    path.unlink()
    assert watched.has_changed()
    with pytest.raises(ProfileError):
        watched.read_profile()
    path.write_bytes(text(tree()))
    assert watched.has_changed()
    assert isinstance(watched.read_profile(), CostProfile)


def test_the_shipped_profile_never_changes(shipped):
    watched = WatchedProfileFile(None)
    assert not watched.has_changed()
    assert watched.read_profile().version == watched.current_profile.version == shipped.version
