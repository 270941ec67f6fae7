"""What README, docs/, .env.example and Makefile say is what the code does."""

import ast
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands

from conftest import documented_defaults
from detector.logs import OneObjectFormatter
from detector.metrics import UPLOAD_OUTCOMES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
METRICS = (ROOT / "detector" / "metrics.py").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "deepfake_site" / "settings.py").read_text(encoding="utf-8")

MAKE_TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, flags=re.MULTILINE))


def settings_keys() -> set[str]:
    """The name in every env.<type>("NAME", ...), env("NAME") and env_<type>("NAME", ...) of settings.py."""
    keys = set()
    for call in (node for node in ast.walk(ast.parse(SETTINGS)) if isinstance(node, ast.Call)):
        reader = ast.unparse(call.func)
        if re.fullmatch(r"env|env\.\w+|env_\w+", reader) and call.args:
            name = call.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                keys.add(name.value)
    return keys


def readme_defaults() -> dict[str, str]:
    """Key and default of each row of README's settings table."""
    return dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (?:`(.*?)`)? ?\|", README, flags=re.MULTILINE))


def fenced_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_env_example_lists_every_key_that_the_settings_read_and_no_other() -> None:
    assert set(documented_defaults()) == settings_keys()


def test_readme_table_has_the_keys_and_defaults_of_env_example() -> None:
    assert readme_defaults() == documented_defaults()


def test_every_key_of_env_example_is_explained() -> None:
    lines = ENV_EXAMPLE.splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        if re.match(r"#?[A-Z][A-Z0-9_]*=", line):
            assert re.match(r"# [A-Z].*\.$", before), f"no sentence above {line}"


def test_documented_defaults_are_those_of_the_settings() -> None:
    """With only a SECRET_KEY the settings are the same as with every documented default spelled out."""
    program = (
        "import json, environ; environ.Env.read_env = lambda *a, **k: None; import deepfake_site.settings as s;"
        "print(json.dumps({k: repr(v) for k, v in vars(s).items() if k.isupper()}, sort_keys=True))"
    )
    bare = {key: value for key, value in os.environ.items() if key not in documented_defaults()}
    bare["SECRET_KEY"] = "only-for-tests"
    shown = [
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        ).stdout
        for environment in (bare, {**documented_defaults(), **bare})
    ]
    assert shown[0] == shown[1]


def test_every_make_target_in_the_documents_exists() -> None:
    commands = "\n".join([*fenced_blocks("bash"), *re.findall(r"`[^`\n]+`", README)])
    named = set(re.findall(r"\bmake ([a-z0-9-]+)", commands))
    assert {"run", "test"} <= named
    assert named <= MAKE_TARGETS


def test_every_manage_command_in_the_documents_exists() -> None:
    named = set(re.findall(r"manage\.py ([a-z]\w*)", README + MAKEFILE + ENV_EXAMPLE))
    named |= set(re.findall(r"\$\(MANAGE\) ([a-z]\w*)", MAKEFILE))
    assert {"serve", "detect", "migrate"} <= named
    assert named <= set(get_commands())


def test_every_phony_target_is_a_target_and_the_readme_names_the_two_main_ones_first() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert set(phony.split()) == MAKE_TARGETS
    first_screen = "\n".join(README.splitlines()[:20])
    assert "make run" in first_screen
    assert "make test" in first_screen


def test_every_relative_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_operations_name_what_there_is() -> None:
    """Settings, metrics, targets and commands in docs/operations.md."""
    set_by_deploy = set(re.findall(r"^ +([A-Z][A-Z0-9_]+):", COMPOSE, flags=re.MULTILINE))
    of_the_page = {"BACKUP", "DATABASE", "ERROR", "LOCKS", "LOCK_ARGS", "NAMES", "NUMBER", "WORKER TIMEOUT", "SIGKILL"}
    named = set(re.findall(r"`([A-Z][A-Z0-9_ ]+)(?:=[^`]*)?`", OPERATIONS))
    assert named <= set(documented_defaults()) | set_by_deploy | of_the_page
    counted = set(re.findall(r'"(deepfake_\w+)"', METRICS))
    assert {name.removesuffix("_total") for name in re.findall(r"`(deepfake_\w+)`", OPERATIONS)} == counted
    assert set(re.findall(r"^\s*make ([a-z0-9-]+)|`make ([a-z0-9-]+)", OPERATIONS, flags=re.MULTILINE)) <= {
        pair for target in MAKE_TARGETS for pair in ((target, ""), ("", target))
    }
    assert set(re.findall(r"manage\.py ([a-z]\w*)", OPERATIONS)) <= set(get_commands())


def test_what_systemd_reads_is_readable_by_root_alone() -> None:
    """nginx is in the service's group, for the pictures; the secrets are none of its business."""
    (line,) = re.findall(r"^install .*/etc/deepfake-detector\.env.*$", OPERATIONS, flags=re.MULTILINE)
    assert "--mode=0600" in line
    assert "--group" not in line


def test_operations_list_what_can_become_of_an_upload() -> None:
    (row,) = re.findall(r"^\| `deepfake_uploads_total` \| `outcome`: (.*?) \|", OPERATIONS, flags=re.MULTILINE)
    assert set(row.split(", ")) == {*UPLOAD_OUTCOMES.values(), "other"}


def test_operations_list_the_fields_of_a_log_record() -> None:
    """Of a request that was refused and of a fault."""
    (section,) = re.findall(r"^\*\*Logs\*\*.*?\n\n", OPERATIONS, flags=re.MULTILINE | re.DOTALL)
    documented = set(re.findall(r"`([a-z_]+)`", section))
    fault = (ValueError, ValueError("broken"), None)
    record = logging.LogRecord("django.request", logging.ERROR, "", 1, "Not Found: %s", ("/x",), fault)
    record.__dict__ |= {"request_id": "-", "status_code": 404, "request": object()}
    assert set(json.loads(OneObjectFormatter().format(record))) <= documented


def test_operations_say_what_to_do_in_each_emergency() -> None:
    (section,) = re.findall(r"^## When something is wrong\n(.*?)^## ", OPERATIONS, flags=re.MULTILINE | re.DOTALL)
    for what in ("`storage`", "`DiskFull`", "`redis`", "detector.E001", "changepassword", "deletion", "abuse"):
        assert what in section


@pytest.mark.model
def test_readme_production_settings_pass_the_deployment_check() -> None:
    (block,) = fenced_blocks("ini")
    production = dict(line.split("=", 1) for line in block.splitlines())
    production["SECRET_KEY"] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
    production["DATABASE_URL"] = production["DATABASE_URL"].replace("<password>", "secret")
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={**os.environ, **production},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
