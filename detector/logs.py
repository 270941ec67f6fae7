"""How log records are written: each with the id of its request, and without anybody's address.

Django's own messages hold paths but no addresses; those of gunicorn and of libraries may hold some, so they are taken
out of the finished line, whoever wrote it.
"""

import ipaddress
import logging
import re
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from detector.request_ids import current_request_id

ACCESS_LOGGER = "gunicorn.access"
# gunicorn's names for what an access line tells. No query string, no address, no referrer, no browser.
ACCESS_LINE = "%(m)s %(U)s %(s)s %(B)s B %(M)s ms"
ACCESS_FIELDS = {"m": "method", "U": "path", "s": "status", "B": "byte_count", "M": "duration_ms"}
NUMBERS = {"status", "byte_count", "duration_ms"}
# Shaped like an address; whether it is one is for `ipaddress` to say.
IPV4_SHAPE = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
IPV6_SHAPE = re.compile(r"(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
# gunicorn's words for a request that it could not read, up to the quotation, and for one whose answer broke.
REFUSAL = re.compile(r"Invalid request from ip=\S*: [^:'\"]*")
BROKEN_ANSWER = "Error handling request %s %s"


def without_addresses(text: str) -> str:
    """The text with every IP address replaced, but for those that only say "this machine"."""
    return IPV6_SHAPE.sub(_replacement, IPV4_SHAPE.sub(_replacement, text))


def _replacement(match: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return match[0] if address.is_loopback or address.is_unspecified else "[address]"


class RequestIdFilter(logging.Filter):
    """Lets every record pass and notes on it which request it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id() or "-"
        return True


class LevelFilter(logging.Filter):
    """Makes warnings of what Django logs as errors though nothing is broken, and drops them where none are wanted.

    That is what it calls suspicious in a request and refuses with a 400, which anybody can send (a host that is not
    ours, a form of a thousand fields), and each 503: whoever gives one logs its cause, an outage as an error and mere
    overload as a warning, and many may follow on one cause.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        is_of_client = record.name.startswith("django.security.")
        is_unavailable = record.name == "django.request" and getattr(record, "status_code", None) == 503
        if not is_of_client and not is_unavailable:
            return True
        if record.levelno == logging.ERROR:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


class RefusalFilter(logging.Filter):
    """Lets every record of gunicorn pass without what the client sent.

    It quotes the line that it could not read, be that of the address, of a header or of the body, and tells the whole
    address where an answer broke: each may hold what was asked for, a cookie or part of a form.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "gunicorn.error":
            return True
        if refusal := REFUSAL.match(record.getMessage()):
            record.msg, record.args = refusal[0].rstrip(": "), ()
        elif record.msg == BROKEN_ANSWER and isinstance(record.args, tuple):
            method, address = record.args
            record.args = (method, str(address).partition("?")[0])
        return True


def in_one_line(text: str) -> str:
    """The text with whatever would not be seen written out, line breaks above all."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class LineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        """Called before a traceback is added: a path may hold a line break, and behind it a record that is made up."""
        record.message = in_one_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return without_addresses(super().format(record))


class OneObjectFormatter(JsonFormatter):
    """One JSON object per record; an access line also has its parts as fields of their own."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "process", "request_id", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            # Django adds the request object, whose text holds the query string.
            reserved_attrs=[*RESERVED_ATTRS, "request", "taskName"],
            timestamp="time",
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        if record.name == ACCESS_LOGGER and isinstance(record.args, dict):
            for atom, name in ACCESS_FIELDS.items():
                value = record.args[atom]
                log_data[name] = int(value or 0) if name in NUMBERS else value

    def format(self, record: logging.LogRecord) -> str:
        return without_addresses(super().format(record))
