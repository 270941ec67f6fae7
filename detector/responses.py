"""Answers that are given from more than one place, as a page or, to a script that asks for it, as JSON."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from detector.templatetags.display import megabytes


def wants_json(request: HttpRequest) -> bool:
    return request.get_preferred_type(["text/html", "application/json"]) == "application/json"


def refuse(request: HttpRequest, template: str, status: int, sentence: str, **context: Any) -> HttpResponse:
    """The page `template`, or the sentence as JSON, with `retry_after` (seconds) in body and header if it is given."""
    retry_after = context.get("retry_after")
    response: HttpResponse
    if wants_json(request):
        body = {"error": sentence} if retry_after is None else {"error": sentence, "retry_after": retry_after}
        response = JsonResponse(body, status=status)
    else:
        response = render(request, template, {"sentence": sentence, **context}, status=status)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    response["Cache-Control"] = "no-store"
    return response


def detection_gone(request: HttpRequest, sentence: str, **context: Any) -> HttpResponse:
    """404 for what was deleted while somebody was at it."""
    return refuse(request, "404.html", 404, sentence, lead=sentence, **context)


def unreadable(request: HttpRequest) -> HttpResponse:
    return refuse(request, "400.html", 400, "The request could not be read.")


def unknown_host(request: HttpRequest) -> HttpResponse:
    """Without naming the host, which is whatever the client said."""
    sentence = "This site is not set up for this address: its host name is not in ALLOWED_HOSTS."
    return refuse(request, "400.html", 400, sentence, is_unknown_host=True)


def picture_too_large(request: HttpRequest) -> HttpResponse:
    limit = megabytes(settings.MAX_UPLOAD_BYTES)
    return refuse(request, "413.html", 413, f"The file is too large; at most {limit} are accepted.")


def text_too_long(request: HttpRequest) -> HttpResponse:
    """For everything in a form that is not a file."""
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024
    sentence = f"There is too much text in what was sent; at most {limit} KB are accepted."
    return refuse(request, "413.html", 413, sentence, is_text=True)
