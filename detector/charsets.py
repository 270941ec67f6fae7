"""No request is read in another encoding than UTF-8, the pages' own.

Django takes whichever codec a client names: some are none for text, some make text that no database stores, some take
long; and where it refuses one for a form, it does so again for the page that says so. So the name goes before Django
sees it, and with one that is not UTF-8 a form's boundary goes as well, without which it is answered 400.
"""

import codecs
from collections.abc import Callable, Iterable
from email.message import Message
from typing import Any

from django.utils.http import parse_header_parameters


class Utf8Requests:
    """A WSGI application whose requests name no charset."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        content_type = environ.get("CONTENT_TYPE", "")
        if ";" in content_type:
            environ["CONTENT_TYPE"] = _without_charset(content_type)
        return self.application(environ, start_response)


def _without_charset(content_type: str) -> str:
    """The content type without its charset, and without any parameter where that is not UTF-8 or cannot be read."""
    try:
        _, parameters = parse_header_parameters(content_type)
        is_utf8 = codecs.lookup(parameters.get("charset", "utf-8")).name == "utf-8"
    except (ValueError, LookupError):
        is_utf8 = False
    if not is_utf8:
        return content_type.partition(";")[0]
    if "charset" not in parameters:
        return content_type
    message = Message()
    message["content-type"] = content_type
    message.del_param("charset")
    return str(message["content-type"])
