import gc

from django.apps import AppConfig


class DetectorConfig(AppConfig):
    name = "detector"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Deepfake detector"

    def ready(self) -> None:
        from detector import checks, receivers  # noqa: F401

        # All of that stays: looking through it for garbage again and again takes a twentieth of a start.
        gc.freeze()
        gc.enable()  # `manage.py` turns it off
