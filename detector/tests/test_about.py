import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector.checks import RATES
from detector.model_cards import SHIPPED_FOLDS, read_model_card
from detector.tests.factories import FakePredictor

ROOT = Path(__file__).parents[2]
URL = reverse("detector:about")

FIGURES = {"n": 400, "n_real": 200, "n_fake": 200, "auc": 0.9123, "auc_ci": [0.89, 0.93], "acc": 0.85}


@pytest.fixture
def model_dir(settings: Settings, tmp_path: Path) -> Path:
    settings.MODEL_DIR = tmp_path
    return tmp_path


def write_metrics(model_dir: Path, tables: dict[str, Any]) -> None:
    (model_dir / "metrics.json").write_text(json.dumps({"model_version": "7", "n_train": 5000, "tables": tables}))


@pytest.mark.django_db
def test_figures_come_from_the_model_s_folder(client: Client, model_dir: Path) -> None:
    write_metrics(model_dir, {"test": {"overall": FIGURES, "by_source": {"stylegan": {"n": 40, "auc": 0.876}}}})
    response = client.get(URL)
    assertContains(response, "0.912")
    assertContains(response, "0.876")
    assertContains(response, "stylegan")


@pytest.mark.django_db
def test_the_limits_are_those_that_were_measured(client: Client) -> None:
    """On the model that ships: what a picture goes through hides fakes; blur and darkness hurt genuine ones."""
    metrics = json.loads((ROOT / "models/mobilenet_v2/metrics.json").read_text())
    response = client.get(URL)
    assertContains(response, "<strong>Blurred, small or strongly compressed fakes</strong> pass as Real more often")
    changes = metrics["delivery_test"]
    for delivery in ("blur", "halved", "jpeg_30"):
        assert changes[delivery]["fake_acc_change"] < -0.05
    assertContains(response, "blurred or darkened ones somewhat more often, too")
    costly = {delivery for delivery, row in changes.items() if row["real_acc_change"] < -0.01}
    assert costly == {"blur", "brightness_0.7"}
    assert min(row["real_acc_change"] for row in changes.values()) > -0.03
    assertContains(response, "portraits framed as generators frame theirs, and frames of videos")
    sources = metrics["tables"]["test"]["by_source"]
    genuine = {name: row["real_acc"] for name, row in sources.items() if row["n_real"] >= 50}
    assert set(sorted(genuine, key=genuine.__getitem__)[:3]) == {"ciplab_edits", "dfdc_faces224", "ffhq_sg1_140k"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("bucket", "said", "untrue"),
    [
        ("", ["kept on this server only", "nothing is sent anywhere else", "Photos stay on this server"], "storage"),
        ("faces", ["analysed on this server only", "may be another company", "judged on this server"], "stay on this"),
    ],
)
def test_where_photos_are_kept_is_stated(
    client: Client, settings: Settings, bucket: str, said: list[str], untrue: str
) -> None:
    settings.MEDIA_S3_BUCKET = bucket
    response = client.get(URL)
    for sentence in said:
        assertContains(response, sentence)
    assertNotContains(response, untrue)
    if bucket:
        assertNotContains(response, "nothing is sent anywhere else")


@pytest.mark.django_db
def test_what_an_address_is_counted_for_is_stated(client: Client) -> None:
    """One phrase for each limit that counts networks, where nobody is logged in."""
    counted_for = {
        "LOGIN_FAILURE_RATE": "log-ins",
        "LOGIN_RATE": "log-ins",
        "LOGIN_NAME_RATE": "log-ins",
        "SIGNUP_RATE": "sign-ups",
        "UPLOAD_RATE": "uploads",
        "PICTURE_RATE": "pictures looked at",
        "APPEAL_RATE": "objections",
    }
    assert set(counted_for) == set(RATES)
    (sentence,) = re.findall("Your network’s address[^.]*[.]", client.get(URL).content.decode())
    for what in counted_for.values():
        assert what in sentence


@pytest.mark.django_db
@pytest.mark.parametrize(("max_faces", "words"), [(1, "found: the largest, and"), (20, "found: the 20 largest, and")])
def test_how_many_faces_are_judged_is_stated(client: Client, settings: Settings, max_faces: int, words: str) -> None:
    settings.MAX_FACES = max_faces
    assertContains(client.get(URL), words)


@pytest.mark.django_db
def test_backups_are_said_to_keep_what_was_deleted(client: Client) -> None:
    assertContains(client.get(URL), "Backups of this site, if there are any, keep it until they are thrown away.")


@pytest.mark.django_db
def test_the_assumed_share_of_fakes_is_stated(client: Client, model_dir: Path) -> None:
    assert "of all uploads are fakes" not in client.get(URL).content.decode()
    (model_dir / "spec.json").write_text(json.dumps({"calibration": {"prior": 0.23}}))
    assertContains(client.get(URL), "23\N{NO-BREAK SPACE}% of all uploads are fakes")


@pytest.mark.django_db
def test_a_second_network_is_spoken_of_where_there_is_one(client: Client, model_dir: Path) -> None:
    assertNotContains(client.get(URL), "a second network")
    (model_dir / "spec.json").write_text(json.dumps({"second_opinion": {"asked_between": [0.1, 0.7]}}))
    assertContains(client.get(URL), "a second network")


@pytest.mark.django_db
def test_another_share_of_fakes_is_stated_beside_the_model_s(
    client: Client, model_dir: Path, settings: Settings
) -> None:
    (model_dir / "spec.json").write_text(json.dumps({"calibration": {"prior": 0.23}}))
    settings.FAKE_PRIOR = 0.4
    assertContains(client.get(URL), "assume that 40\N{NO-BREAK SPACE}% of all uploads are fakes")


@pytest.mark.django_db
def test_of_a_source_of_fakes_alone_no_balance_is_claimed(client: Client, model_dir: Path) -> None:
    write_metrics(model_dir, {"test": {"overall": FIGURES, "by_source": {"swaps": {"n": 7, "n_real": 0, "n_fake": 7}}}})
    assertContains(client.get(URL), "with as many fakes as genuine photos, where a set or source has both")


@pytest.mark.django_db
def test_deliveries_and_left_out_kinds_are_shown(client: Client, model_dir: Path) -> None:
    delivered = {**FIGURES, "auc": 0.8771, "auc_change": -0.0358}
    write_metrics(model_dir, {"test": {"overall": FIGURES}})
    metrics = json.loads((model_dir / "metrics.json").read_text())
    metrics |= {
        "delivery_test": {"jpeg_50": delivered},
        "leave_one_out": {
            "frozen_head": {"fake_gan": {"n": 7, "auc": 0.666}},
            SHIPPED_FOLDS: {"fake_gan": {"n": 7, "auc": 0.777}, "config": {}},
        },
    }
    (model_dir / "metrics.json").write_text(json.dumps(metrics))
    response = client.get(URL)
    for text in ("quality 50", "0.877", "-0.036", "Fakes by GANs", "0.777"):
        assertContains(response, text)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"test": {}},
        {"test": {"overall": {}}},
        {"test": {"overall": {"n": 3}, "by_source": {}}},
        {"test": {"by_source": {"a": {"auc": None}}}},
        {"another": {"overall": FIGURES}},
    ],
)
def test_a_figure_that_was_not_measured_breaks_nothing(client: Client, model_dir: Path, tables: dict[str, Any]) -> None:
    write_metrics(model_dir, tables)
    assert client.get(URL).status_code == HTTPStatus.OK


@pytest.mark.django_db
@pytest.mark.parametrize("content", [None, "", "{", "[]", "null"])
def test_without_a_readable_card_the_page_still_explains(client: Client, model_dir: Path, content: str | None) -> None:
    if content is not None:
        (model_dir / "metrics.json").write_text(content)
        (model_dir / "spec.json").write_text(content)
    response = client.get(URL)
    assert response.status_code == HTTPStatus.OK
    assert response.context["tables"] == []


def test_tables_come_in_the_order_of_what_they_prove(model_dir: Path) -> None:
    write_metrics(
        model_dir,
        {
            "degraded": {"overall": FIGURES},
            "val": {"overall": FIGURES},
            "test_unseen": {"overall": FIGURES, "by_source": {"b": {"auc": 0.6}, "a": {"auc": 0.8}}},
            "test": {"overall": FIGURES},
        },
    )
    tables = read_model_card(model_dir).tables
    assert [table["name"] for table in tables] == ["test", "test_unseen", "val", "degraded"]
    assert [(row["source"], row["is_overall"], row["auc"]) for row in tables[1]["rows"]] == [
        ("All", True, 0.9123),
        ("a", False, 0.8),
        ("b", False, 0.6),
    ]
    assert tables[1]["rows"][0]["auc_ci"] == [0.89, 0.93]
    assert tables[1]["rows"][1]["n"] is None


@pytest.mark.django_db
@pytest.mark.model
def test_the_shipped_model_s_figures_are_shown(client: Client) -> None:
    response = client.get(URL)
    assert response.context["spec"]["version"]
    auc = response.context["tables"][0]["rows"][0]["auc"]
    assertContains(response, f"{auc:.3f}")


@pytest.mark.django_db
@pytest.mark.parametrize(("loaded", "in_spec", "are_shown"), [("7", "7", True), ("7", "8", True), ("6", "7", False)])
def test_only_figures_of_the_model_in_use_are_shown(
    client: Client, model_dir: Path, predictor: FakePredictor, loaded: str, in_spec: str, are_shown: bool
) -> None:
    """Whoever trains anew replaces the files of the folder while this process goes on with what it has loaded."""
    write_metrics(model_dir, {"test": {"overall": FIGURES}})
    (model_dir / "spec.json").write_text(json.dumps({"version": in_spec}))
    predictor.spec.version = loaded

    page = client.get(URL).content.decode()

    assert ("0.912" in page) is are_shown
    assert ("No measured figures lie beside the model in use" in page) is not are_shown


@pytest.mark.parametrize(("version", "are_shown"), [("7", True), ("8", False)])
def test_figures_of_another_spec_are_left_out(model_dir: Path, version: str, are_shown: bool) -> None:
    write_metrics(model_dir, {"test": {"overall": FIGURES}})
    (model_dir / "spec.json").write_text(json.dumps({"version": version}))
    assert bool(read_model_card(model_dir).tables) is are_shown


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changed", "is_said"), [({}, False), ({"REAL_THRESHOLD": 0.9}, True), ({"UNCERTAIN_ABOVE": 0.1}, True)]
)
def test_a_moved_mark_is_told_from_what_was_measured(
    client: Client,
    model_dir: Path,
    predictor: FakePredictor,
    settings: Settings,
    changed: dict[str, float],
    is_said: bool,
) -> None:
    write_metrics(model_dir, {"test": {"overall": FIGURES}})
    predictor.spec.version = "7"
    for name, value in changed.items():
        setattr(settings, name, value)

    page = client.get(URL).content.decode()

    assert ("have moved the marks" in page) is is_said
    assert ("correct verdicts under the rule above" in page) is not is_said


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_other_methods_are_not_allowed(client: Client, method: str) -> None:
    assert getattr(client, method)(URL).status_code == HTTPStatus.METHOD_NOT_ALLOWED
