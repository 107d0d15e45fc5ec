"""Files are there whole or not at all."""

import os

import pytest

from foveal.whole_file import whole_file, why_not_writable


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_text_and_bytes_take_their_place_at_the_end(tmp_path):
    with whole_file(tmp_path / "a.txt") as file:
        file.write("狗\n")
        assert not (tmp_path / "a.txt").exists()
    with whole_file(tmp_path / "b.png", "wb") as file:
        file.write(b"\x89")
    assert (tmp_path / "a.txt").read_bytes() == "狗\n".encode()
    assert (tmp_path / "b.png").read_bytes() == b"\x89"
    assert names(tmp_path) == ["a.txt", "b.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")

    def fail():
        with whole_file(tmp_path / "a.txt") as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    with whole_file(tmp_path / "link.txt") as file:
        file.write("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "new"


def test_a_pipe_is_written_to_and_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as file:
        file.write("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert names(tmp_path) == ["pipe"]
    assert not pipe.is_file()


def test_why_a_file_cannot_be_written_is_known_before(tmp_path):
    assert why_not_writable(tmp_path / "a.txt") is None
    assert "is a folder" in why_not_writable(tmp_path)
    assert "there is no folder" in why_not_writable(tmp_path / "lost" / "a.txt")
    assert "too long" in why_not_writable(tmp_path / ("a" * 1000))


def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path):
    file = tmp_path / ("a" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    assert why_not_writable(file) is None
    with whole_file(file) as opened:
        opened.write("all")
    assert file.read_text() == "all"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here, where no file can be made")
def test_what_cannot_be_written_is_told_by_its_own_name():
    with pytest.raises(OSError, match=r"/proc/seen\.png"), whole_file("/proc/seen.png"):
        pass
