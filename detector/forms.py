import re
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.forms import PasswordChangeForm, UserCreationForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest

from detector import services
from detector.exceptions import InvalidImage, NameTaken
from detector.images import ACCEPTED_FORMATS, DecodedImage, decode_image
from detector.models import Detection, ReviewVerdict
from detector.reviews import Look, UnreadableLook

TOO_LARGE = "too_large"
# What browsers write for a quotation mark and the two characters of a line break in the name of a file; a percent sign
# they leave as it is (WHATWG HTML, "multipart/form-data encoding algorithm").
BROWSER_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}
OTHER_ESCAPE = re.compile(r"%(?!22|0D|0A)[0-9A-Fa-f]{2}")


def chosen_name(sent_name: str) -> str:
    """The name of the file as its uploader knows it, without the escapes that the browser put in.

    A file that is really called so cannot be told apart where nothing else is escaped; one whose name comes from an
    address has other escapes as well, such as %20, and keeps them all.
    """
    if OTHER_ESCAPE.search(sent_name):
        return sent_name
    for escape, character in BROWSER_ESCAPES.items():
        sent_name = sent_name.replace(escape, character)
    return sent_name


class UploadForm(forms.Form):
    """Bytes in, a decoded picture out; the bytes themselves stay at hand as `data_bytes`."""

    picture = forms.FileField(
        # An empty file gets the sentence of decode_image().
        allow_empty_file=True,
        widget=forms.FileInput(attrs={"accept": ",".join(f"image/{name.lower()}" for name in ACCEPTED_FORMATS)}),
        error_messages={"required": "Choose a picture first."},
    )

    forget = forms.BooleanField(required=False)

    data_bytes: bytes = b""
    original_name: str = ""

    def clean_picture(self) -> DecodedImage:
        upload: UploadedFile[bytes] = self.cleaned_data["picture"]
        self.original_name = chosen_name(upload.name or "")
        self.data_bytes = upload.read()
        try:
            return decode_image(
                self.data_bytes, max_bytes=settings.MAX_UPLOAD_BYTES, max_pixels=settings.MAX_UPLOAD_PIXELS
            )
        except InvalidImage as error:
            raise ValidationError(str(error), code=error.code) from error

    def take_picture(self) -> tuple[bytes, DecodedImage]:
        """The file and what was decoded from it, once: a form refers to itself, and would keep them for long."""
        data, self.data_bytes = self.data_bytes, b""
        return data, self.cleaned_data.pop("picture")

    @property
    def is_too_large(self) -> bool:
        return self.has_error("picture", TOO_LARGE)

    @property
    def sentence(self) -> str:
        """The first thing that is wrong, for a script that shows one sentence."""
        return next((str(error) for errors in self.errors.values() for error in errors), "")


class AppealForm(forms.Form):
    """Why the uploader thinks that a result is wrong, if they say so."""

    sentence = forms.CharField(
        required=False, max_length=500, error_messages={"max_length": "At most %(limit_value)d characters, please."}
    )


class ReviewForm(forms.Form):
    """One reviewer's verdict, with the page on which it was reached."""

    verdict = forms.ChoiceField(choices=ReviewVerdict, error_messages={"required": "Choose a verdict."})
    note = forms.CharField(
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="For other reviewers; the uploader does not see it.",
    )
    look = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, detection: Detection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.detection = detection

    def clean_look(self) -> Look:
        try:
            look = Look.read(self.cleaned_data["look"])
        except UnreadableLook as error:
            raise ValidationError("The page is too old. Reload it and decide again.") from error
        if look.detection_key != self.detection.pk:
            raise ValidationError("The form belongs to another detection. Reload the page.")
        return look


class FocusOnMistake(forms.BaseForm):
    """Gives the first field that is wrong the focus, or else the first one, so that it comes into sight."""

    def add_error(self, field: str | None, error: Any) -> None:
        super().add_error(field, error)
        wrong = (name for name in self.fields if self.has_error(name))
        first = next(wrong, next(iter(self.fields)))
        for name, each in self.fields.items():
            each.widget.attrs["autofocus"] = name == first


class SignupForm(FocusOnMistake, UserCreationForm):  # type: ignore[type-arg]
    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username",)

    def create_user(self) -> User | None:
        """The new account; None, and an error beside the name, if somebody took it since it was found to be free.

        Hashing the password lies in between, which takes long on purpose: a second click is enough.
        """
        user: User = self.save(commit=False)
        try:
            services.account_create(account=user)
        except NameTaken:
            self.add_error("username", User._meta.get_field("username").error_messages["unique"])
            return None
        return user


class AccountDeletionForm(FocusOnMistake, forms.Form):
    """The account's own password; wrong ones count as failed log-ins do, and lock like them."""

    password = forms.CharField(strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}))

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        name = self.request.user.get_username()
        if authenticate(self.request, username=name, password=password) != self.request.user:
            raise ValidationError("That is not the password of this account.", code="password_incorrect")
        return password


class PasswordForm(FocusOnMistake, PasswordChangeForm):
    """A new password for whoever knows the old one; wrong ones count as failed log-ins do, and lock like them."""

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        old_password: str = self.cleaned_data["old_password"]
        if authenticate(self.request, username=self.user.get_username(), password=old_password) != self.user:
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return old_password
