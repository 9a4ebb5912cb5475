import socket
from pathlib import Path

import pytest

from chronobook_server.config.settings import Address, UnixSocket
from chronobook_server.system.listen import AddressTaken, free_endpoint


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AddressTaken, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            free_endpoint(Address("127.0.0.1", port))
    assert free_endpoint(Address("localhost", port)) == Address("127.0.0.1", port)


def test_a_socket_is_free_where_nobody_listens(tmp_path: Path) -> None:
    wanted = UnixSocket(tmp_path / "socket")
    assert free_endpoint(wanted) == wanted
    assert not wanted.path.exists()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(wanted.path))
    assert wanted.path.exists()
    free_endpoint(wanted)
    assert not wanted.path.exists(), "what a killed process left behind is removed"


def test_a_foreign_socket_a_file_and_no_folder_are_refused(tmp_path: Path) -> None:
    taken = UnixSocket(tmp_path / "taken")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(taken.path))
        other.listen()
        with pytest.raises(AddressTaken, match="another process listens there"):
            free_endpoint(taken)
        assert taken.path.is_socket()
    file = UnixSocket(tmp_path / "file")
    file.path.write_text("precious")
    with pytest.raises(AddressTaken, match="there is a file of that name"):
        free_endpoint(file)
    assert file.path.read_text() == "precious"
    with pytest.raises(AddressTaken, match="No such file or directory"):
        free_endpoint(UnixSocket(tmp_path / "nowhere" / "socket"))
