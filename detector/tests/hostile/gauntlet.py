"""Sends every hostile upload through the application, in a process of its own, and says what each one cost.

`python -m detector.tests.hostile.gauntlet` prints a line of JSON for each case; `--only TEXT` picks some by name. It is
a process of its own so that a crash of a decoder or a filled memory is one failed case, and no lost test run.
"""

import argparse
import io
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import django

PREPARED_CASES = ("truncations: whole JPEG", "truncations: whole PNG", "truncations: whole WebP")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deepfake_site.settings")
    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.test.utils import override_settings, setup_test_environment

    from detector.tests.hostile.corpus import cases

    setup_test_environment()
    counters = {name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"} for name in ("default", "ratelimit")}
    plain_static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    with (
        tempfile.TemporaryDirectory() as media,
        override_settings(
            MEDIA_ROOT=media,
            CACHES=counters,
            STORAGES={**settings.STORAGES, "staticfiles": plain_static},  # nothing was collected
            UPLOAD_RATE="100000/d",
            PICTURE_RATE="100000/d",
        ),
    ):
        call_command("migrate", verbosity=0)
        every = list(cases())
        for case in every:
            if case.name in PREPARED_CASES:  # loads what every request shares: templates, the model, the decoders
                run(case, Path(media))
        for case in every:
            if only in case.name:
                print(json.dumps(run(case, Path(media))), flush=True)


def run(case: Any, media: Path) -> dict[str, Any]:
    from django.test import Client

    from detector.models import Detection

    Detection.objects.all().delete()
    client = Client(raise_request_exception=False)
    body = case.make_body()
    reset_peak()
    memory_before, cpu_before = resident_mb("VmRSS"), time.process_time()
    response = client.generic("POST", "/", body, case.content_type)
    cpu_s, peak_mb = time.process_time() - cpu_before, resident_mb("VmHWM") - memory_before
    rows = list(Detection.objects.all())
    return {
        "name": case.name,
        "outcome": case.outcome,
        "status": response.status_code,
        "rows": len(rows),
        "verdicts": [row.verdict for row in rows],
        "cpu_s": round(cpu_s, 3),
        "peak_mb": round(peak_mb, 1),
        "faults": [fault for row in rows for fault in shown_faults(client, row)],
        "files": sorted(path.suffix for path in media.rglob("*") if path.is_file()),
    }


def shown_faults(client: Any, row: Any) -> list[str]:
    """What is wrong with the pages and pictures that are shown of an upload."""
    from PIL import Image

    from detector.tests.hostile.workshop import MARKER

    faults = []
    page = client.get(row.get_absolute_url())
    text = page.content.decode()
    if page.status_code != 200:
        faults.append(f"the page says {page.status_code}")
    if page["X-Content-Type-Options"] != "nosniff" or "default-src 'self'" not in page["Content-Security-Policy"]:
        faults.append("the page's headers do not protect it")
    if re.search(r"<script>alert|<img src=x|\x00|\u202e", text) or MARKER.decode() in text:
        faults.append("the page shows what was sent as it was sent")
    for name in ("image", "thumbnail"):
        answer = client.get(f"{row.get_absolute_url()}{name}/")
        if answer.status_code != 200:
            faults.append(f"{name} says {answer.status_code}")
            continue
        if answer["X-Content-Type-Options"] != "nosniff":
            faults.append(f"{name} may be sniffed")
        if answer["Content-Security-Policy"] != "default-src 'none'; sandbox":
            faults.append(f"{name} is not sandboxed")
        if MARKER in answer.content:
            faults.append(f"{name} carries the payload")
        with Image.open(io.BytesIO(answer.content)) as picture:
            strange = set(picture.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            if strange:
                faults.append(f"{name} carries {sorted(strange)}")
            if answer["Content-Type"] != Image.MIME[str(picture.format)]:
                faults.append(f"{name} is {picture.format}, sent as {answer['Content-Type']}")
    return faults


def reset_peak() -> None:
    """Has the kernel forget the highest memory so far, so that the next reading is of one case."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_mb(line: str) -> float:
    """The process's memory now (VmRSS) or at its highest since `reset_peak` (VmHWM)."""
    found = re.search(rf"^{line}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
