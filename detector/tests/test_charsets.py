"""What of a request's content type reaches the application."""

import pytest

from detector.charsets import Utf8Requests

FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data"


def passed_on(content_type: str) -> str:
    environ = {"CONTENT_TYPE": content_type}
    Utf8Requests(lambda *_: [])(environ, lambda *_: None)
    return environ["CONTENT_TYPE"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", '"utf-8"', "U8"])
def test_of_utf_8_the_name_alone_goes(charset: str) -> None:
    assert passed_on(f"{FORM}; charset={charset}") == FORM
    assert passed_on(f"{PARTS}; boundary=b; charset={charset}") == f'{PARTS}; boundary="b"'
    assert passed_on(f'{PARTS}; charset={charset}; boundary="b c"') == f'{PARTS}; boundary="b c"'


@pytest.mark.parametrize(
    "charset",
    ["=hex", "=unicode_escape", "=punycode", "=iso-8859-1", "=none", "=\xff", "=", "*=hex''%41", "*=none''%41"],
)
def test_with_another_one_a_form_has_no_boundary(charset: str) -> None:
    assert passed_on(f"{PARTS}; boundary=b; charset{charset}") == PARTS
    assert passed_on(f"{FORM}; charset{charset}") == FORM


@pytest.mark.parametrize("content_type", ["", FORM, f"{PARTS}; boundary=b", f'{PARTS}; boundary="b;charset=hex"'])
def test_what_names_none_stays_as_it_is(content_type: str) -> None:
    assert passed_on(content_type) == content_type
