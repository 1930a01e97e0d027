"""When a file that changes is told of: once, and not while it is being written."""

from gateway.changed_files import ChangedFiles


async def test_a_change_is_told_once_it_has_been_still_for_one_look(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    files = ChangedFiles(one, other)
    assert not await files.look()
    other.write_text("12")
    assert not await files.look()
    other.write_text("123")
    assert not await files.look()
    assert await files.look()
    assert not await files.look()
    other.unlink()
    assert not await files.look()
    assert await files.look()


async def test_a_request_is_told_at_once_and_once(tmp_path):
    path = tmp_path / "file"
    path.write_text("1")
    files = ChangedFiles(path)
    files.request_read()
    assert await files.look()
    assert not await files.look()
    path.write_text("12")
    files.request_read()
    assert await files.look()
    assert not await files.look()
    assert not await files.look()
