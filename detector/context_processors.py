from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, bool]:
    return {"signup_enabled": settings.SIGNUP_ENABLED, "pictures_in_bucket": bool(settings.MEDIA_S3_BUCKET)}
