"""Where the page may listen, what its password and certificate must be: else refused at the start, with the cure."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.app import local
from agent.app.local import open_listener, open_tls, read_password
from agent.config import Local
from agent.errors import Rejected

PEM = Path(__file__).with_name("camera_tls.pem")


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("a long one\nand a remark\n")
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(Rejected) as refused:
        call()
    assert refused.value.hint
    return refused.value.code


def test_without_a_port_nothing_listens() -> None:
    assert open_listener(Local()) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_it_listens_as_it_is(address: str) -> None:
    listener = open_listener(Local(port=free_port(), address=address))
    assert listener is not None
    listener.close()


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_socket_that_is_handed_in_open_to_the_network_wants_password_and_certificate(
    address: str, password: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(local, "handed_in", lambda _: socket.create_server((address, 0), family=family))
    for half in ({}, {"password_file": password}, {"cert_file": PEM, "key_file": PEM}):
        assert code_of(lambda: open_listener(Local(**half))) == "local-open"  # noqa: B023
    both = open_listener(Local(password_file=password, cert_file=PEM, key_file=PEM))
    assert both is not None
    both.close()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.7", "till-3.lan"])
def test_the_configuration_itself_is_refused_when_it_opens_the_page_without_both(address: str, password: Path) -> None:
    for half in ({}, {"password_file": password}, {"cert_file": PEM, "key_file": PEM}):
        with pytest.raises(ValidationError, match="everybody in the network"):
            Local(port=8471, address=address, **half)
    Local(port=8471, address=address, password_file=password, cert_file=PEM, key_file=PEM)
    Local(port=0, address=address)


def test_a_port_in_use_and_an_address_of_nobody_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert code_of(lambda: open_listener(Local(port=taken.getsockname()[1]))) == "port-in-use"
    for address in ("192.0.2.1", "no such name"):
        nowhere = Local(port=free_port()).model_copy(update={"address": address})
        assert code_of(lambda: open_listener(nowhere)) == "local-address"  # noqa: B023


def test_a_password_is_the_files_first_line_and_not_a_short_one(password: Path, tmp_path: Path) -> None:
    assert read_password(None) is None
    assert read_password(password) == "a long one"
    for content in (b"", b"short\n", b"\nsecond line\n", b"\xff" * 20):
        password.write_bytes(content)
        assert code_of(lambda: read_password(password)) == "local-password"
    assert code_of(lambda: read_password(tmp_path / "nothing")) == "local-password"


def test_a_certificate_that_is_none_is_refused(password: Path) -> None:
    assert open_tls(Local()) is None
    assert open_tls(Local(cert_file=PEM, key_file=PEM)) is not None
    assert code_of(lambda: open_tls(Local(cert_file=password, key_file=PEM))) == "local-certificate"
    assert code_of(lambda: open_tls(Local(cert_file=PEM, key_file=password))) == "local-certificate"
