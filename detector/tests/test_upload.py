import gc
import json
import re
import weakref
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site_settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import DatabaseError, OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects, assertTemplateUsed
from pytest_django.fixtures import Settings

from detector import forms
from detector.images import DecodedImage, decode_image
from detector.models import Detection
from detector.tests.factories import FakePredictor, make_jpeg, make_picture, make_upload, make_user
from detector.visitors import RENEW_AFTER_S, RENEWED_FIELD, SESSION_FIELD

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter", "predictor")]

URL = reverse("detector:upload")
JSON: dict[str, Any] = {"headers": {"accept": "application/json"}}


def send(client: Client, data: bytes | None = None, name: str = "holiday.jpg", **extra: Any) -> Any:
    return client.post(URL, {"picture": make_upload(data, name)}, **extra)


def test_the_page_says_what_is_accepted_and_how_many_uploads_are_left(client: Client) -> None:
    response = client.get(URL)
    assert response.status_code == HTTPStatus.OK
    assert response.context["uploads_left"] == 5
    assert response.context["upload_limit"] == 5
    assert response.context["upload_period_s"] == 60
    assert response.context["max_upload_bytes"] == 15 * 1024 * 1024
    assert response.context["max_upload_megapixels"] == "50"
    assert response.context["redis_down"] is False
    assertContains(response, "JPEG")


@pytest.mark.parametrize(
    ("above", "up_to", "legend"),
    [
        (
            0.3,
            0.972,
            [
                "Real The model gives the face a probability of more than 97.2 % of being real.",
                "Fake It gives 30 % or less: the face may be swapped, edited or generated.",
                "Real, uncertain Fake, uncertain In between it leans to real above 70 %, else to fake,"
                " but without conviction. Look closer.",
            ],
        ),
        (0.3, 0.7, ["more than 70 %", "30 % or less", "Fake, uncertain In between it leans to fake, but without"]),
        (0.7, 0.8, ["more than 80 %", "70 % or less", "Real, uncertain In between it leans to real, but without"]),
        (0.7, 0.7, ["more than 70 %", "70 % or less"]),
    ],
)
def test_the_legend_follows_the_rule_in_force(
    client: Client, settings: Settings, above: float, up_to: float, legend: list[str]
) -> None:
    settings.UNCERTAIN_ABOVE, settings.UNCERTAIN_UP_TO = above, up_to
    content = client.get(URL).content.decode().replace("\N{NO-BREAK SPACE}", " ")
    items = content[content.index('<ul class="legend">') :].split("</ul>")[0].split("<li>")[1:]
    shown = [" ".join(re.sub(r"<[^>]*>", " ", item).split()) for item in items]
    assert len(shown) == len(legend) + 1
    assert all(words in item for words, item in zip(legend, shown, strict=False))
    assert shown[-1].startswith("No face")


def test_looking_at_the_page_uses_no_upload_up(client: Client) -> None:
    for _ in range(7):
        client.get(URL)
    assert client.get(URL).context["uploads_left"] == 5
    send(client)
    assert client.get(URL).context["uploads_left"] == 4


def test_an_anonymous_upload_leads_to_its_result(client: Client) -> None:
    response = send(client)
    detection = Detection.objects.get()
    assertRedirects(response, reverse("detector:detection", args=[detection.pk]))
    assert detection.owner is None
    assert detection.session_key == client.session[SESSION_FIELD]
    assert len(detection.session_key) == 40
    assert (detection.status, detection.verdict, detection.fake_probability) == ("done", "fake", 0.9)


def test_an_upload_with_an_account_belongs_to_the_account(client: Client) -> None:
    user = make_user()
    client.force_login(user)
    send(client)
    detection = Detection.objects.get()
    assert detection.owner == user
    assert detection.session_key == ""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fields", [{}, {"forget": "on"}], ids=["kept", "forgotten"])
def test_an_account_that_goes_during_its_upload_leaves_nothing(
    client: Client, media_root: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    predict = FakePredictor.predict

    def predict_meanwhile(*args: Any, **options: Any) -> Any:
        User.objects.all().delete()
        return predict(*args, **options)

    monkeypatch.setattr(FakePredictor, "predict", predict_meanwhile)
    client.force_login(make_user())
    response = client.post(URL, {"picture": make_upload(), **fields})
    assertContains(response, "Your account was deleted in the meantime", status_code=HTTPStatus.FORBIDDEN)
    assert not Detection.objects.exists()
    assert not [path for path in media_root.rglob("*") if path.is_file()]


def test_a_picture_s_memory_is_free_again_after_its_answer(
    client: Client, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: list[weakref.ref[object]] = []

    def decode(data: bytes, **limits: int) -> DecodedImage:
        image = decode_image(data, **limits)
        pictures.append(weakref.ref(image.picture))
        return image

    monkeypatch.setattr(forms, "decode_image", decode)
    gc.disable()  # 18 threads may hold a picture each until the next collection
    try:
        assert send(client).status_code == HTTPStatus.FOUND
        predictor.images.clear()
        assert [picture() for picture in pictures] == [None]
    finally:
        gc.enable()


def test_a_script_gets_the_result_s_address(client: Client) -> None:
    response = send(client, **JSON)
    assert response.status_code == HTTPStatus.CREATED
    assert json.loads(response.content) == {"url": Detection.objects.get().get_absolute_url()}


def test_a_second_upload_of_the_same_visitor_joins_the_first(client: Client) -> None:
    send(client)
    send(client)
    assert len(set(Detection.objects.values_list("session_key", flat=True))) == 1


@pytest.mark.parametrize(
    ("data", "part_of_the_sentence"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a JPEG, PNG or WebP"),
        (make_picture(file_format="TIFF"), "not a JPEG, PNG or WebP"),
        (make_jpeg()[:-400], "incomplete"),
        (make_picture(20, 400), "at least 32"),
    ],
    ids=["empty", "svg", "tiff", "truncated", "too small"],
)
def test_what_is_not_a_picture_is_refused_with_the_reason(
    client: Client, data: bytes, part_of_the_sentence: str, media_root: Any
) -> None:
    page = send(client, data)
    assert page.status_code == HTTPStatus.BAD_REQUEST
    assertTemplateUsed(page, "detector/upload.html")
    assertContains(page, part_of_the_sentence, status_code=HTTPStatus.BAD_REQUEST)
    script = send(client, data, **JSON)
    assert script.status_code == HTTPStatus.BAD_REQUEST
    body = json.loads(script.content)
    assert part_of_the_sentence in body["error"]
    assert body["uploads_left"] == 3
    assert not Detection.objects.exists()
    assert not media_root.exists()


def test_a_form_without_a_picture_is_refused(client: Client) -> None:
    response = client.post(URL)
    assertContains(response, "Choose a picture first.", status_code=HTTPStatus.BAD_REQUEST)


def test_two_pictures_at_once_are_refused(client: Client) -> None:
    response = client.post(URL, {"picture": make_upload(), "another": make_upload()})
    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert not Detection.objects.exists()


def test_a_picture_over_the_limit_is_too_large(client: Client, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 1000
    response = send(client)
    assertContains(response, "accepted", status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    assert not Detection.objects.exists()


class Body:
    """A request body of nothing in particular, which notes the largest piece that was asked of it."""

    def __init__(self) -> None:
        self.byte_count = self.largest_piece = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "The whole body was read at once."
        self.byte_count += size
        self.largest_piece = max(self.largest_piece, size)
        return b"x" * size

    readline = read


LIMIT_WITH_FORM = site_settings.MAX_UPLOAD_BYTES + site_settings.DATA_UPLOAD_MAX_MEMORY_SIZE


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("length", "read"), [(LIMIT_WITH_FORM + 1, LIMIT_WITH_FORM + 1), (10**12, 0)])
def test_a_body_over_the_limit_is_refused_and_never_held_in_memory(
    client: Client, settings: Settings, debug: bool, length: int, read: int
) -> None:
    settings.DEBUG = debug
    sent = Body()
    body: dict[str, Any] = {
        "wsgi.input": sent,
        "CONTENT_LENGTH": str(length),
        "CONTENT_TYPE": "multipart/form-data; boundary=x",
    }
    page = client.post(URL, **body)
    assert page.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert (sent.byte_count, sent.largest_piece <= 64 * 1024) == (read, True)
    assertTemplateUsed(page, "413.html")
    assertContains(page, "at most 15 MB are accepted", status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    script = client.post(URL, **body, **JSON)
    assert script.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert json.loads(script.content) == {"error": "The file is too large; at most 15 MB are accepted."}
    assert client.get(URL).context["uploads_left"] == 5


def test_a_picture_of_exactly_the_limit_is_let_in(client: Client, settings: Settings) -> None:
    data = make_jpeg()
    settings.MAX_UPLOAD_BYTES = len(data)
    assert send(client, data).status_code == HTTPStatus.FOUND


def test_text_that_is_too_long_is_not_called_a_file(client: Client) -> None:
    page = client.post(reverse("login"), {"username": "x" * 300_000, "password": "y"})
    assertContains(page, "<h1>That is too much text</h1>", status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    assertContains(page, "at most 256 KB are accepted", status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    assertNotContains(page, "file is too large", status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    assertNotContains(page, "A smaller copy", status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def test_form_fields_that_are_too_large_are_refused(client: Client) -> None:
    response = client.post(URL, {"picture": make_upload(), "note": "x" * 300_000})
    assert response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_each_upload_lets_a_visitor_s_session_last_anew(client: Client) -> None:
    """Else who comes every week would lose sight of their pictures two weeks after the first one."""
    send(client)
    Session.objects.update(expire_date=timezone.now() + timedelta(days=1))
    assert site_settings.SESSION_COOKIE_NAME not in send(client).cookies, "not within the hour"
    session = client.session
    session[RENEWED_FIELD] -= RENEW_AFTER_S + 1
    session.save()
    Session.objects.update(expire_date=timezone.now() + timedelta(days=1))
    cookie = send(client).cookies[site_settings.SESSION_COOKIE_NAME]
    assert timedelta(seconds=int(cookie["max-age"])) == timedelta(days=14)
    assert Session.objects.get().expire_date > timezone.now() + timedelta(days=13)
    assert len({detection.session_key for detection in Detection.objects.all()}) == 1


def test_a_picture_without_a_face_has_no_verdict(client: Client, predictor: FakePredictor) -> None:
    predictor.fake_probabilities = ()
    assert send(client).status_code == HTTPStatus.FOUND
    detection = Detection.objects.get()
    assert (detection.status, detection.verdict) == ("not_applicable", "not_applicable")
    assert detection.fake_probability is None


def test_a_failed_analysis_says_so_and_gives_no_verdict(client: Client, predictor: FakePredictor) -> None:
    predictor.error = RuntimeError("tensor arena")
    page = send(client)
    assert page.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assertTemplateUsed(page, "detector/detection.html")
    assert client.get(Detection.objects.get().get_absolute_url()).status_code == HTTPStatus.OK
    assert "tensor arena" not in page.content.decode()
    script = send(client, **JSON)
    assert script.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert set(json.loads(script.content)) == {"error", "url"}
    for detection in Detection.objects.all():
        assert (detection.status, detection.verdict, detection.fake_probability) == ("failed", "", None)
        assert detection.image.storage.exists(str(detection.image.name))


def test_a_picture_that_cannot_be_stored_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, media_root: Path
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("disk I/O error")

    monkeypatch.setattr(Detection, "save", fail)
    client = Client(raise_request_exception=False)
    page = send(client)
    assert page.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assertTemplateUsed(page, "500.html")
    script = send(client, **JSON)
    assert script.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert set(json.loads(script.content)) == {"error"}
    assert [path for path in media_root.rglob("*") if path.is_file()] == []


def test_a_limit_of_another_kind_is_said_in_words(client: Client, settings: Settings) -> None:
    settings.UPLOAD_RATE = "1/90m"
    assertContains(client.get(URL), "<strong>1</strong> of 1 upload left these 90 minutes")
    send(client)
    assertContains(client.get(URL), "The next one is free in 1 h 30 min.")
    page = send(client)
    assertContains(page, "1 h 30 min</strong>", status_code=HTTPStatus.TOO_MANY_REQUESTS)
    assertContains(page, "Everybody has 1 upload in 90 minutes;", status_code=HTTPStatus.TOO_MANY_REQUESTS)
    assert send(client, **JSON).json()["error"].endswith("The next one is possible in 1 h 30 min.")


def test_the_sixth_upload_is_limited(client: Client) -> None:
    for _ in range(5):
        assert send(client).status_code == HTTPStatus.FOUND
    page = send(client)
    assert page.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assertTemplateUsed(page, "detector/limited.html")
    wait = page.context["retry_after"]
    assert 1 <= wait <= 60
    assert page["Retry-After"] == str(wait)
    script = send(client, **JSON)
    assert script.status_code == HTTPStatus.TOO_MANY_REQUESTS
    body = json.loads(script.content)
    assert script["Retry-After"] == str(body["retry_after"])
    assert f"{body['retry_after']} second" in body["error"]
    assert Detection.objects.count() == 5
    assert client.get(URL).context["uploads_left"] == 0


def test_a_refused_picture_counts_as_an_upload(client: Client) -> None:
    send(client, b"nothing")
    assert client.get(URL).context["uploads_left"] == 4


def test_without_redis_uploads_are_refused_and_the_page_works(
    client: Client, settings: Settings, logged: list[str]
) -> None:
    settings.CACHES = {**settings.CACHES, "ratelimit": {"BACKEND": "detector.ratelimits.NoSharedCache"}}
    page = client.get(URL)
    assert page.status_code == HTTPStatus.OK
    assert page.context["uploads_left"] is None
    assert page.context["redis_down"] is True
    refused = send(client)
    assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert refused["Retry-After"] == "30"
    assertTemplateUsed(refused, "detector/unavailable.html")
    assert "rest of the site works" not in refused.content.decode()  # nobody can object, log in or sign up
    script = send(client, **JSON)
    assert script.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert "try again" in json.loads(script.content)["error"]
    assert logged == ["Nobody can upload: REDIS_URL is not set, so nothing can be counted."] * 2
    assert not Detection.objects.exists()


def test_an_upload_needs_its_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    assert send(client).status_code == HTTPStatus.FORBIDDEN
    script = send(client, **JSON)
    assert script.status_code == HTTPStatus.FORBIDDEN
    assert "Reload" in json.loads(script.content)["error"]
    token = client.get(URL).context["csrf_token"]
    response = client.post(URL, {"picture": make_upload(), "csrfmiddlewaretoken": str(token)})
    assert response.status_code == HTTPStatus.FOUND


def test_a_form_from_before_the_log_in_says_what_happened(limiter: Settings) -> None:
    make_user("ada")
    client = Client(enforce_csrf_checks=True)
    before = str(client.get(URL).context["csrf_token"])
    token = str(client.get(reverse("login")).context["csrf_token"])
    log_in = {"username": "ada", "password": "correct horse battery", "csrfmiddlewaretoken": token}
    assertRedirects(client.post(reverse("login"), log_in), URL)
    form = {"picture": make_upload(), "csrfmiddlewaretoken": before}
    assertContains(client.post(URL, form), "you have logged in since", status_code=HTTPStatus.FORBIDDEN)


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_other_methods_are_not_allowed(client: Client, method: str) -> None:
    assert getattr(client, method)(URL).status_code == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("holiday.jpg", "holiday.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\me.png", "me.png"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("x" * 300 + ".jpg", "x" * 251 + ".jpg"),
        # As browsers send 'my "best" day.jpg', '"100%".jpg' and a name with a line break.
        ("my %22best%22 day.jpg", 'my "best" day.jpg'),
        ("%22100%%22.jpg", '"100%".jpg'),
        ("two%0D%0Alines.jpg", "twolines.jpg"),
        # A file that is called so itself: nothing tells it apart.
        ("a%22b.jpg", 'a"b.jpg'),
        # From an address, or none of what browsers write.
        ("%22My%20Day%22.jpg", "%22My%20Day%22.jpg"),
        ("100%25 %22.jpg", "100%25 %22.jpg"),
        ("a%0ab%2.jpg", "a%0ab%2.jpg"),
        ("100%.jpg", "100%.jpg"),
    ],
)
def test_the_client_s_name_is_for_display_only(client: Client, sent: str, kept: str) -> None:
    send(client, name=sent)
    detection = Detection.objects.get()
    assert detection.original_name == kept
    assert detection.image.name == f"detections/{detection.created_at:%Y/%m}/{detection.pk}.jpg"


def test_a_database_that_goes_behind_an_upload_is_not_said_to_have_kept_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OperationalError("server closed the connection")

    client.raise_request_exception = False
    monkeypatch.setattr(SessionStore, "save", fail)
    response = send(client)

    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert Detection.objects.count() == 1
    assert "no photo was taken in" not in response.content.decode()
    assert "look first whether it is in your history" in response.content.decode()
