from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile

from detector.exceptions import InvalidImage
from detector.images import ACCEPTED_FORMATS, DecodedImage, decode_image
from detector.models import Detection

TOO_LARGE = "too_large"


class UploadForm(forms.Form):
    """Bytes in, a decoded picture out; the bytes themselves stay at hand as `data_bytes`."""

    picture = forms.FileField(
        # An empty file gets the sentence of decode_image().
        allow_empty_file=True,
        widget=forms.FileInput(attrs={"accept": ",".join(f"image/{name.lower()}" for name in ACCEPTED_FORMATS)}),
        error_messages={"required": "Choose a picture first."},
    )

    data_bytes: bytes = b""
    original_name: str = ""

    def clean_picture(self) -> DecodedImage:
        upload: UploadedFile[bytes] = self.cleaned_data["picture"]
        self.original_name = upload.name or ""
        self.data_bytes = upload.read()
        try:
            return decode_image(
                self.data_bytes, max_bytes=settings.MAX_UPLOAD_BYTES, max_pixels=settings.MAX_UPLOAD_PIXELS
            )
        except InvalidImage as error:
            raise ValidationError(str(error), code=error.code) from error

    @property
    def is_too_large(self) -> bool:
        return self.has_error("picture", TOO_LARGE)

    @property
    def sentence(self) -> str:
        """The first thing that is wrong, for a script that shows one sentence."""
        return next((str(error) for errors in self.errors.values() for error in errors), "")


class ReviewForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Detection
        fields = ["review_verdict", "review_note"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("review_note") and not cleaned.get("review_verdict"):
            self.add_error("review_verdict", "A note needs a verdict; choose one.")
        return cleaned


class SignupForm(UserCreationForm):  # type: ignore[type-arg]
    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username",)
