"""deploy/, run natively: the commands of the Dockerfile and the compose file, and nginx with the same configuration.

Nothing is copied from those files: commands, environment and mounts are read out of them, and only addresses, ports and
folders are replaced. What a container engine would add (images, users, read-only roots) is left to their linters.
"""

import base64
import functools
import gzip
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml
from django.contrib.auth.models import AnonymousUser
from django.core.cache import caches
from django.test import RequestFactory
from dockerfile_parse import DockerfileParser
from PIL import Image
from pytest_django import Settings

from conftest import SYSTEM_PATH
from deepfake_site.settings import redis_caches
from detector.private_redis import PrivateRedis, dies_with_parent
from detector.ratelimits import take_upload
from detector.tests.portraits import astronaut_jpeg
from detector.tests.test_serve import eventually
from detector.throttling import KNOWN_NETWORK_S

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SITE_HOST = "faces.example.org"
TOKEN = "a-token-of-more-than-16-characters"
# What somebody would write into deploy/.env.
CHOSEN = {
    "SITE_HOST": SITE_HOST,
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_",
    "POSTGRES_PASSWORD": "unused-here",
    "METRICS_TOKEN": TOKEN,
    "WEB_CONCURRENCY": "1",
}
BIN = Path(sys.executable).parent
FAIL_TIMEOUT_S = 6  # a second more than in nginx.conf.template
START_TIMEOUT_S = 60
LONGEST_STALL_S = 4  # of a process on a busy machine
BOUNDARY = "deployment"
IPV6_HERE = Path("/proc/net/if_inet6")
HAS_IPV6 = IPV6_HERE.exists()


def can_listen(address: str) -> bool:
    try:
        socket.create_server((address, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# Where IPv6 is there and switched off, only the address that stands for all of none can be listened on.
LOOPBACK_V6 = "::1" if can_listen("::1") else "::"
LOOPBACKS = ["127.0.0.1", "::1"] if LOOPBACK_V6 == "::1" else ["127.0.0.1"]


def dockerfile() -> dict[str, Any]:
    """The last stage's environment, and the commands that its building and the image run."""
    parser = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Dockerfile").read_bytes()))
    last = {each["instruction"]: each["value"] for each in parser.structure}
    (collect,) = (each["value"] for each in parser.structure if "manage.py collectstatic" in each["value"])
    return {
        "collect": collect,
        "environment": dict(parser.envs),
        "run": json.loads(last["CMD"]),
        "check": json.loads(last["HEALTHCHECK"].partition("CMD ")[2]),
    }


def interpolated(value: Any) -> Any:
    """The value with what compose puts in place of ${NAME}, ${NAME:?} and ${NAME:-default}; $$ is a dollar."""
    if isinstance(value, dict):
        return {key: interpolated(each) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each) for each in value]
    if not isinstance(value, str):
        return value

    def chosen(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, _, default = match[1].partition(":-")
        return CHOSEN.get(name.removesuffix(":?")) or default

    return re.sub(r"\$\$|\$\{([^}]+)\}", chosen, value)


# Linters


def test_dockerfile_has_no_findings() -> None:
    done = subprocess.run([BIN / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_file_fits_the_specification() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_container_of_ours_runs_without_rights_on_a_read_only_root() -> None:
    for name in ("prepare", "purge", "app1", "app2", "nginx", "redis"):
        service = COMPOSE["services"][name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    stages = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Dockerfile").read_bytes())).structure
    assert [each["value"] for each in stages if each["instruction"] == "USER"] == ["10001"]


def test_compose_asks_for_every_variable_that_has_no_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    needed = set(re.findall(r"\$\{([A-Z_]+):\?\}", text))
    example = (DEPLOY / "env.example").read_text(encoding="utf-8")
    assert needed <= set(re.findall(r"^([A-Z_]+)=", example, flags=re.MULTILINE))


def test_whatever_can_be_set_reaches_the_containers() -> None:
    for name in ("prepare", "purge", "app1", "app2"):
        service = COMPOSE["services"][name]
        assert service["env_file"] == [".env"], name
        # What compose.yaml sets wins, and nginx cannot send what is in a bucket.
        assert service["environment"]["MEDIA_X_ACCEL"] == "${MEDIA_X_ACCEL:-true}"


def test_packages_for_a_bucket_are_a_setting_of_compose_too() -> None:
    """`compose up --build` takes no --build-arg; an image made anew without it would refuse to start."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    default = re.findall(r'^ARG LOCKS="(.*)"$', text, flags=re.MULTILINE)
    assert [COMPOSE["x-app"]["build"]["args"]["LOCKS"]] == [f"${{LOCKS:-{each}}}" for each in default]


def test_image_holds_what_a_server_needs_and_no_tests_or_secrets() -> None:
    """Docker's rules for the ignore file, as far as it uses them: * leaves everything out, ! brings something back."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    brought = [rule[1:] for rule in rules if rule.startswith("!")]
    assert all((ROOT / path).exists() for path in brought)
    needed = {"manage.py", "gunicorn.conf.py", "deepfake_site", "detector", "templates", "models"}
    assert needed | {"requirements-web.txt"} <= set(brought)
    assert not {".env", "media", "db.sqlite3", "training", "benchmarks", ".git", "conftest.py"} & set(brought)


def compose_command(service: str) -> list[str]:
    command: list[str] = interpolated(COMPOSE["services"][service]["command"])
    return command


@pytest.mark.redis
def test_a_redis_that_is_full_keeps_the_counters_of_the_running_minute(tmp_path: Path, settings: Settings) -> None:
    command = compose_command("redis")
    command[command.index("--maxmemory") + 1] = "2mb"
    address = tmp_path / "redis"
    server = subprocess.Popen([*command, "--port", "0", "--unixsocket", str(address)], stdout=subprocess.DEVNULL)
    try:
        assert eventually(address.exists, START_TIMEOUT_S)
        settings.CACHES = redis_caches(f"unix://{address}?db=0")
        request = RequestFactory().post("/")
        request.user = AnonymousUser()
        with redis.Redis(unix_socket_path=str(address)) as client:
            fill_redis(client, "known-{}", KNOWN_NETWORK_S)
            time.sleep(2)  # by the second: when something was last asked for
            assert [take_upload(request).is_exceeded for _ in range(5)] == [False] * 5
            fill_redis(client, "axes-{}", 900)
            assert len(client.keys("*slot:*")) == 5
        assert take_upload(request).is_exceeded
    finally:
        caches["ratelimit"].close()
        server.terminate()
        server.wait(30)


def fill_redis(client: redis.Redis, name: str, seconds: int) -> None:
    """Until three thousand keys had to go for it, of the six or seven for which there is room."""
    number = itertools.count()
    before = client.info("stats")["evicted_keys"]
    while client.info("stats")["evicted_keys"] < before + 3_000:
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(500):
                pipeline.set(name.format(f"{next(number):040}"), 1, ex=seconds)
            pipeline.execute()


def test_both_ways_to_deploy_clear_up_daily() -> None:
    for text in (unit("deepfake-detector-purge.service"), " ".join(compose_command("purge"))):
        assert "manage.py clearsessions" in text
        assert "manage.py purge_uploads" in text


def test_the_containers_purge_old_pictures_too(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{SYSTEM_PATH}",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "MEDIA_ROOT": str(tmp_path / "media"),
        "RETENTION_DAYS": "30",
        "PYTHONUNBUFFERED": "1",
    }
    subprocess.run(["python", "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    log = tmp_path / "log"
    with log.open("w") as output:
        purging = subprocess.Popen(
            compose_command("purge"), cwd=ROOT, env=environment, stdout=output, start_new_session=True
        )
    try:
        removed = "Removed the pictures of 0 detections"
        assert eventually(lambda: log.read_text().startswith(removed), START_TIMEOUT_S), log.read_text()
        assert purging.poll() is None, "it waits for the next day"
    finally:
        os.killpg(purging.pid, signal.SIGKILL)
        purging.wait()


UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir())


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, for a project that lies here and not in /opt."""
    for name in UNITS:
        text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
        text = text.replace("/opt/deepfake-detector/.venv/bin", str(BIN)).replace("/opt/deepfake-detector", str(ROOT))
        (tmp_path / name.replace("@.", "@8001.")).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.systemd
def test_units_have_no_findings(units: Path) -> None:
    names = [f"./{name.replace('@.', '@8001.')}" for name in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *names], cwd=units, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.systemd
def test_an_instance_is_exposed_to_little(units: Path) -> None:
    """systemd's own measure: from 0 for a service that can do nothing to 10 for one that may do everything."""
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "./deepfake-detector@8001.service"]
    done = subprocess.run(command, cwd=units, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:]


def unit(name: str) -> str:
    return (DEPLOY / "systemd" / name).read_text(encoding="utf-8")


def test_an_instance_may_read_what_the_network_needs() -> None:
    """Without /proc/cpuinfo LiteRT leaves XNNPACK out: under a real systemd an upload then took twice as long."""
    assert not re.search(r"^ProcSubset=", unit("deepfake-detector@.service"), flags=re.MULTILINE)


def test_the_site_comes_up_with_its_database_and_prepares_once() -> None:
    """As tried under a real systemd, where a database that was late once kept the instances down for good."""
    uphold = re.findall(r"^Upholds=(.*)$", unit("deepfake-detector.target"), flags=re.MULTILINE)
    assert uphold == ["deepfake-detector@8001.service deepfake-detector@8002.service"]
    prepare = unit("deepfake-detector-prepare.service").splitlines()
    assert {"RemainAfterExit=yes", "Restart=on-failure", "PartOf=deepfake-detector.target"} <= set(prepare)


def test_units_start_the_command_of_the_image() -> None:
    text = unit("deepfake-detector@.service")
    (command,) = re.findall(r"^ExecStart=/opt/deepfake-detector/\.venv/bin/(.*)$", text, flags=re.MULTILINE)
    assert command.split() == [*dockerfile()["run"], "--bind=127.0.0.1:%i"]


@pytest.mark.parametrize(
    ("allowed", "asked_for"),
    [
        ("faces.example.org,app1", "faces.example.org"),
        (".example.org", "example.org"),
        ("[::1]", "[::1]"),
        ("*", "localhost"),
        ("", "localhost"),
    ],
)
def test_the_health_check_asks_under_a_name_that_is_answered(allowed: str, asked_for: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = {"ALLOWED_HOSTS": allowed, "PORT": str(listener.getsockname()[1])}
        check = subprocess.Popen([sys.executable, DEPLOY / "healthcheck.py"], env=environment)
        connection, _ = listener.accept()
        with connection:
            asked = connection.recv(1024)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert check.wait(10) == 0
    assert f"\r\nHost: {asked_for}\r\n".encode() in asked


def test_nginx_closes_an_idle_connection_before_gunicorn_does() -> None:
    """One that gunicorn closes under a form, which nginx may not send twice, fails."""
    upstream = re.search(r"upstream detector {(.*?)}\n", (DEPLOY / "nginx.conf.template").read_text(), flags=re.DOTALL)
    assert upstream
    (idle_s,) = re.findall(r"^ *keepalive_timeout (\d+)s;", upstream[1], flags=re.MULTILINE)
    configuration = (ROOT / "gunicorn.conf.py").read_text(encoding="utf-8")
    (keepalive_s,) = re.findall(r"^keepalive = (\d+)$", configuration, flags=re.MULTILINE)
    assert int(keepalive_s) - int(idle_s) >= LONGEST_STALL_S


@pytest.mark.nginx
@pytest.mark.parametrize("has_ipv6", {HAS_IPV6, False})
def test_documented_lines_make_a_sound_nginx_configuration_for_units(tmp_path: Path, has_ipv6: bool) -> None:
    """The lines of docs/operations.md, with folders and ports of here; their last word is nginx' own judgement."""
    (lines,) = re.findall(r"^export SITE_HOST=.*?^nginx -t", OPERATIONS, flags=re.MULTILINE | re.DOTALL)
    make_certificate(tmp_path)
    http_port, https_port = free_ports(2)
    for there, here in {
        "/etc/letsencrypt/live/faces.example.org": str(tmp_path),
        "/etc/nginx/nginx.conf": f"{tmp_path}/nginx.conf",
        "/var/log/nginx": str(tmp_path),
        "RUN_DIRECTORY=/run": f"RUN_DIRECTORY={tmp_path}",
        "TEMP_DIRECTORY=/var/lib/nginx": f"TEMP_DIRECTORY={tmp_path}",
        "LISTEN_HTTP=80": f"LISTEN_HTTP={http_port}",
        "LISTEN_HTTPS=443": f"LISTEN_HTTPS={https_port}",
        "[::]:80": f"[::]:{http_port}",
        "[::]:443": f"[::]:{https_port}",
        str(IPV6_HERE): str(IPV6_HERE if has_ipv6 else tmp_path / "no-such-file"),
        "nginx -t": f"nginx -t -c {tmp_path}/nginx.conf",
    }.items():
        assert there in lines, there
        lines = lines.replace(there, here)
    environment = {"PATH": SYSTEM_PATH}
    done = subprocess.run(["sh", "-euc", lines], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "test is successful" in done.stderr, done.stderr
    written = (tmp_path / "nginx.conf").read_text(encoding="utf-8")
    assert "${" not in written
    assert written.count("listen [::]:") == (4 if has_ipv6 else 0)


def test_containers_leave_out_ipv6_in_the_same_way() -> None:
    (way,) = re.findall(r"if \[ -e .*?; fi >", OPERATIONS)
    assert way in compose_command("nginx")[-1]
    assert str(IPV6_HERE) in way


# The real thing


def make_certificate(folder: Path) -> None:
    certificate = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout privkey.pem"
    command = f"{certificate} -out fullchain.pem -subj /CN={SITE_HOST}".split()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def nginx_ids() -> tuple[int, int]:
    user, group = COMPOSE["services"]["nginx"]["user"].split(":")
    return int(user), int(group)


def shared_group() -> dict[str, Any]:
    """As in the containers nginx has a user of its own, and the group of the instances, which may read the pictures."""
    return {"group": nginx_ids()[1]} if os.geteuid() == 0 else {}


@dataclass
class Deployment:
    folder: Path
    database_url: str
    redis_url: str
    ports: dict[str, int]
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def environment(self, service: str) -> dict[str, str]:
        """What the container would have, with addresses and folders of here."""
        here = {
            "PATH": f"{BIN}:{SYSTEM_PATH}",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "MEDIA_ROOT": str(self.folder / "media"),
            "STATIC_ROOT": str(self.folder / "static"),
            "TMPDIR": str(self.folder / "run"),
            # A day, so that no window ends during the test.
            "UPLOAD_RATE": "5/d",
            "READY_MIN_FREE_BYTES": "0",
        }
        given = interpolated(COMPOSE["services"][service]["environment"])
        port = {"PORT": str(self.ports[service])} if service in self.ports else {}
        return {**dockerfile()["environment"], **given, **here, **port}

    def start(self, service: str, command: list[str], environment: dict[str, str], **options: Any) -> None:
        with (self.folder / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=dies_with_parent(),
                # Killed as a whole, like a container: gunicorn's workers end with it.
                start_new_session=True,
                **options,
            )

    def build(self) -> None:
        """Fills the volume of the static files as a new one is: with what the image holds there."""
        here = {"PATH": f"{BIN}:{SYSTEM_PATH}", "STATIC_ROOT": str(self.folder / "static")}
        command = ["sh", "-c", dockerfile()["collect"]]
        environment = dockerfile()["environment"] | here
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, **shared_group())

    def prepare(self) -> None:
        command = compose_command("prepare")
        environment = self.environment("prepare")
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, **shared_group())

    def start_instance(self, service: str) -> None:
        self.start(service, dockerfile()["run"], self.environment(service), cwd=ROOT, **shared_group())

    def is_healthy(self, service: str) -> bool:
        command = [str(BIN / "python"), *dockerfile()["check"][1:]]
        assert dockerfile()["check"][0] == "python"
        return subprocess.run(command, cwd=ROOT, env=self.environment(service), capture_output=True).returncode == 0

    def start_nginx(self) -> None:
        nginx = COMPOSE["services"]["nginx"]
        environment = interpolated(nginx["environment"]) | {
            "PATH": SYSTEM_PATH,
            "UPSTREAM_1": f"127.0.0.1:{self.ports['app1']}",
            "UPSTREAM_2": f"127.0.0.1:{self.ports['app2']}",
            "LISTEN_HTTP": f"127.0.0.1:{self.ports['http']}",
            "LISTEN_HTTPS": f"127.0.0.1:{self.ports['https']}",
            "LISTEN_HTTP_V6": f"[{LOOPBACK_V6}]:{self.ports['http']}",
            "LISTEN_HTTPS_V6": f"[{LOOPBACK_V6}]:{self.ports['https']}",
            "TLS_DIRECTORY": str(self.folder),
            "MEDIA_DIRECTORY": str(self.folder / "media"),
            "STATIC_DIRECTORY": str(self.folder / "static"),
            "RUN_DIRECTORY": str(self.folder / "run"),
            "TEMP_DIRECTORY": str(self.folder / "run"),
        }
        assert set(environment) - {"PATH"} == set(nginx["environment"])
        mounts = dict(reversed(volume.split(":")[:2]) for volume in nginx["volumes"] if volume.startswith("./"))
        command = interpolated(nginx["command"])
        script = command[-1].replace("/tmp/", f"{self.folder / 'run'}/")
        for target, source in mounts.items():
            script = script.replace(target, str(DEPLOY / source))
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user, group = nginx_ids()
            (self.folder / "nginx.log").touch()
            os.chown(self.folder / "nginx.log", user, group)
            as_user = {"user": user, "group": group, "extra_groups": []}
        self.start("nginx", [*command[:-1], script], environment, **as_user)

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")

    def kill(self, service: str) -> None:
        process = self.processes.pop(service)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)


@dataclass
class Browser:
    """Somebody at one address, through nginx and TLS; keeps cookies."""

    port: int
    address: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        context = ssl._create_unverified_context()
        host = "::1" if ":" in self.address else "127.0.0.1"
        connection = http.client.HTTPSConnection(
            host, self.port, timeout=30, context=context, source_address=(self.address, 0)
        )
        headers = {"Host": SITE_HOST, "Referer": f"https://{SITE_HOST}/", **headers}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for cookie in response.headers.get_all("Set-Cookie") or []:
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def upload(self, data: bytes, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        if "__Host-csrftoken" not in self.cookies:
            assert self.ask("GET", "/")[0] == 200
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n'
            f"{self.cookies['__Host-csrftoken']}\r\n".encode(),
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="ada-at-home.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n".encode(),
            data,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        ]
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
        return self.ask("POST", "/", b"".join(parts), **headers)


@pytest.fixture(scope="module")
def deployment(postgres_url: str, redis_process: PrivateRedis) -> Iterator[Deployment]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE deployment")
    folder = Path(tempfile.mkdtemp(prefix="deployment-"))
    for name in ("media", "static", "run"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    make_certificate(folder)
    if os.geteuid() == 0:
        user, group = nginx_ids()
        for name in ("run", "privkey.pem"):
            os.chown(folder / name, user, group)
        for name in ("media", "static"):
            os.chown(folder / name, -1, group)
            (folder / name).chmod(0o750)
    ports = dict(zip(("app1", "app2", "http", "https"), free_ports(4), strict=True))
    database_url = postgres_url.replace("/postgres?", "/deployment?")
    running = Deployment(folder, database_url, redis_process.url, ports)
    try:
        running.build()
        running.prepare()
        for service in ("app1", "app2"):
            running.start_instance(service)
        running.start_nginx()
        for service in ("app1", "app2"):
            healthy = functools.partial(running.is_healthy, service)
            assert eventually(healthy, START_TIMEOUT_S), running.log(service)
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


@pytest.fixture
def site(deployment: Deployment, redis_server: PrivateRedis) -> Deployment:
    return deployment


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that runs all of it."""
    for mark in (pytest.mark.nginx, pytest.mark.model, pytest.mark.redis, pytest.mark.postgres):
        test = mark(test)
    return test


@real
def test_a_picture_goes_in_and_its_thumbnail_comes_out_through_nginx(site: Deployment) -> None:
    visitor, stranger = Browser(site.ports["https"]), Browser(site.ports["https"])
    status, headers, _ = visitor.upload(astronaut_jpeg())
    assert status == 302, site.log("app1")
    page = headers["Location"]
    status, headers, _ = visitor.ask("GET", page)
    assert status == 200
    request_id = headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")

    name = f"{page.split('/')[2]}.jpg"
    (stored,) = (site.folder / "media" / "thumbnails").rglob(name)
    address = f"{page}thumbnail/"
    status, headers, body = visitor.ask("GET", address)
    assert (status, body) == (200, stored.read_bytes())
    assert Image.open(io.BytesIO(body)).size == (256, 256)
    assert headers["Content-Type"] == "image/jpeg"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "private, no-cache"
    assert headers["X-Accel-Redirect"] is None
    assert len(headers.get_all("ETag") or []) == 1
    assert visitor.ask("GET", address, None, **{"If-None-Match": headers["ETag"]})[0] == 304
    assert visitor.ask("HEAD", address)[0] == 200
    # Django says who may see it, and nginx shows no file to anybody who asks for one.
    assert stranger.ask("GET", address)[0] == 404
    inside = stored.relative_to(site.folder / "media")
    (upload,) = (site.folder / "media" / "detections").rglob(name)
    for path in (
        f"/protected-media/{inside}",
        f"/protected-media/thumbnails/../{upload.relative_to(site.folder / 'media')}",
        f"/protected-media/{upload.relative_to(site.folder / 'media')}",
        f"/media/{inside}",
        "/static/../media/",
        "/static../media/",
    ):
        assert visitor.ask("GET", path)[0] in (400, 404), path

    # One instance answered, with the file left to nginx; both logs have the id that the browser got.
    def logged() -> bool:
        instances = site.log("app1") + site.log("app2")
        return f'"request_id": "{request_id}"' in instances and f'"request_id":"{request_id}"' in site.log("nginx")

    assert eventually(logged, 20)
    for service in ("app1", "app2", "nginx"):
        assert "ada-at-home" not in site.log(service)


@real
def test_whatever_is_asked_for_nginx_logs_an_object_a_line(site: Deployment) -> None:
    _, headers, _ = Browser(site.ports["https"]).ask("GET", "/%22no%5Csuch%0Apage%C3%A9")

    def line() -> str:
        return next((line for line in site.log("nginx").splitlines() if str(headers["X-Request-ID"]) in line), "")

    assert eventually(lambda: line() != "", 20)
    assert json.loads(line())["path"] == '/"no\\such\npage\u00e9'


@real
def test_an_instance_leaves_the_thumbnail_to_nginx(site: Deployment) -> None:
    visitor = Browser(site.ports["https"])
    page = visitor.upload(astronaut_jpeg())[1]["Location"]
    connection = http.client.HTTPConnection("127.0.0.1", site.ports["app1"], timeout=20)
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    headers = {"Host": SITE_HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1", "Cookie": cookies}
    connection.request("GET", f"{page}thumbnail/", headers=headers)
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    inside = response.headers["X-Accel-Redirect"]
    assert re.fullmatch(r"/protected-media/thumbnails/\d{4}/\d\d/[0-9a-f-]{36}\.jpg", inside)
    connection.request("GET", f"{page}image/", headers=headers)
    response = connection.getresponse()
    # The stored upload may hold metadata: what is shown of it is always encoded anew.
    assert response.headers["X-Accel-Redirect"] is None
    assert Image.open(io.BytesIO(response.read())).size == (512, 512)
    connection.close()


@real
def test_static_files_come_from_nginx_for_good(site: Deployment) -> None:
    visitor = Browser(site.ports["https"])
    page = visitor.ask("GET", "/")[2].decode()
    (style, *_) = re.findall(r'href="(/static/detector/app\.[0-9a-f]{12}\.css)"', page)
    status, headers, body = visitor.ask("GET", style, None, **{"Accept-Encoding": "gzip"})
    assert status == 200
    assert headers["Content-Type"].startswith("text/css")
    assert headers.get_all("Cache-Control") == ["public, max-age=31536000, immutable"]
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == (site.folder / "static" / style.removeprefix("/static/")).read_bytes()
    assert headers["X-Request-ID"] is None, "no instance was asked"
    # The page of an outage links to this one by its plain name.
    assert visitor.ask("GET", "/static/detector/app.css")[1].get_all("Cache-Control") == ["no-cache"]


def assert_in_the_site_s_words(
    headers: http.client.HTTPMessage, body: bytes, words: str, *, retry_after: str | None
) -> None:
    """What nginx answers itself: a page of the site's, which nobody keeps and nothing can be added to."""
    assert f"<h1>{words}</h1>" in body.decode()
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Retry-After"] == retry_after
    assert headers.get_all("Cache-Control") == ["no-store"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    (style,) = re.findall(r"<style>(.*)</style>", body.decode())
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert headers["Content-Security-Policy"].startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


@real
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_file_that_is_too_large_is_refused_in_the_site_s_words(
    site: Deployment, tmp_path: Path, version: str, accept: str
) -> None:
    """As browsers send it: nginx learns of its size in another way over HTTP/2."""
    large = tmp_path / "large.jpg"
    large.write_bytes(b"x" * 17_000_000)
    address = f"{SITE_HOST}:{site.ports['https']}"
    command = ["curl", "--silent", "--insecure", version, "--resolve", f"{address}:127.0.0.1"]
    command += ["--header", f"Accept: {accept}", "--form", f"picture=@{large}"]
    command += ["--write-out", "\n%{http_version} %{http_code}", f"https://{address}/"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    body, _, about = answer.rpartition("\n")
    assert about == f"{version.removeprefix('--http')} 413"
    words = "That file is larger than this site takes in."
    assert words in (json.loads(body)["error"] if accept == "application/json" else body)
    last = next(line for line in reversed(site.log("nginx").splitlines()) if '"status":413' in line)
    assert '"method":"POST","path":"/"' in last


@real
def test_nginx_refuses_what_is_too_large_and_asks_no_instance(site: Deployment) -> None:
    visitor = Browser(site.ports["https"])
    assert visitor.ask("GET", "/")[0] == 200
    connection = http.client.HTTPSConnection(
        "127.0.0.1", site.ports["https"], timeout=30, context=ssl._create_unverified_context()
    )
    connection.putrequest("POST", "/", skip_host=True)
    connection.putheader("Host", SITE_HOST)
    connection.putheader("Content-Length", str(17 * 1024 * 1024))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert response.headers["X-Request-ID"] is None
    assert_in_the_site_s_words(response.headers, response.read(), "That file is too large", retry_after=None)
    connection.close()
    # What nginx lets through and the application does not is answered by the application's own page.
    status, headers, _ = visitor.upload(b"\xff" * (15 * 1024 * 1024 + 300 * 1024))
    assert status == 413
    assert headers["X-Request-ID"]


@real
def test_uploads_are_counted_by_the_address_that_nginx_sees(site: Deployment) -> None:
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7", "X-Request-ID": "f" * 32}
    one = Browser(site.ports["https"], "127.0.0.2")
    answers = [one.upload(b"no picture", **forged) for _ in range(6)]
    assert [status for status, *_ in answers] == [400] * 5 + [429]
    assert all(headers["X-Request-ID"] != "f" * 32 for _, headers, _ in answers)
    assert Browser(site.ports["https"], "127.0.0.2").upload(b"no picture")[0] == 429
    assert Browser(site.ports["https"], "127.0.0.3").upload(b"no picture")[0] == 400


@real
def test_one_address_has_a_bounded_number_of_uploads_on_their_way(site: Deployment) -> None:
    def begin(address: str) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(
            "127.0.0.1",
            site.ports["https"],
            timeout=5,
            context=ssl._create_unverified_context(),
            source_address=(address, 0),
        )
        connection.putrequest("POST", "/?token=secret", skip_host=True)
        connection.putheader("Host", SITE_HOST)
        connection.putheader("Content-Length", "200000")
        connection.endheaders(b"x" * 100_000)
        open_ones.callback(connection.close)
        return connection

    with ExitStack() as open_ones:
        for _ in range(16):
            begin("127.0.0.4")
        time.sleep(0.5)
        with begin("127.0.0.4").getresponse() as refused:
            assert refused.status == 429
            assert_in_the_site_s_words(refused.headers, refused.read(), "Too many uploads at once", retry_after="5")
        other = begin("127.0.0.5")
        other.send(b"x" * 100_000)
        with other.getresponse() as answer:
            # Not limited: taken in whole, and then no form of ours.
            assert answer.status in (400, 403)
        assert Browser(site.ports["https"], "127.0.0.4").ask("GET", "/")[0] == 200
    # nginx says where it keeps such bodies, with the client's address and the query, on a level that is not logged.
    for told in ("client:", "buffered", "secret"):
        assert told not in site.log("nginx")


@real
@pytest.mark.parametrize("loopback", LOOPBACKS)
def test_nothing_is_told_to_other_names_or_without_tls(site: Deployment, loopback: str) -> None:
    connection = http.client.HTTPConnection(loopback, site.ports["http"], timeout=20)
    connection.request("GET", "/history/?page=2", headers={"Host": SITE_HOST})
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (301, f"https://{SITE_HOST}/history/?page=2")
    response.read()
    connection.close()
    visitor = Browser(site.ports["https"], loopback)
    assert visitor.ask("GET", "/about/")[0] == 200
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        visitor.ask("GET", "/", None, Host="other.example.org")


@real
def test_metrics_are_for_inside(site: Deployment) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert Browser(site.ports["https"]).ask("GET", "/metrics", None, **bearer)[0] == 404
    assert Browser(site.ports["https"]).ask("GET", "/readyz")[0] == 200
    for service in ("app1", "app2"):
        connection = http.client.HTTPConnection("127.0.0.1", site.ports[service], timeout=20)
        connection.request("GET", "/metrics", headers={"Host": service, **bearer})
        response = connection.getresponse()
        assert response.status == 200
        assert b"deepfake_request_seconds_bucket" in response.read()
        connection.close()


@real
def test_when_one_instance_is_killed_the_other_serves(site: Deployment) -> None:
    visitor = Browser(site.ports["https"])
    assert visitor.ask("GET", "/")[0] == 200
    site.kill("app1")
    assert not site.is_healthy("app1")
    try:
        started = time.monotonic()
        assert [Browser(site.ports["https"]).ask("GET", "/about/")[0] for _ in range(10)] == [200] * 10
        assert visitor.upload(astronaut_jpeg())[0] == 302
        assert time.monotonic() - started < 60
    finally:
        site.start_instance("app1")
        assert eventually(lambda: site.is_healthy("app1"), START_TIMEOUT_S), site.log("app1")


@real
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_when_no_instance_answers_nginx_says_so_until_one_does(site: Deployment, method: str) -> None:
    visitor = Browser(site.ports["https"])
    for service in ("app1", "app2"):
        site.kill(service)
    try:
        status, headers, body = visitor.ask(method, "/", b"x" if method == "POST" else None)
        assert status == 503
        assert_in_the_site_s_words(headers, body, "Not right now", retry_after="5")
        _, headers, body = visitor.ask(method, "/", None, Accept="application/json")
        assert headers["Content-Type"] == "application/json"
        assert "look first whether it is in your history" in json.loads(body)["error"]
        assert any(
            f'"method":"{method}","path":"/","status":503' in line and '"upstream_status":"502' in line
            for line in site.log("nginx").splitlines()
        )
    finally:
        for service in ("app1", "app2"):
            site.start_instance(service)
        for service in ("app1", "app2"):
            assert eventually(functools.partial(site.is_healthy, service), START_TIMEOUT_S), site.log(service)
    # Each of nginx's workers leaves them alone for some seconds, and who asks does not know which one answers.
    assert eventually(lambda: all(visitor.ask("GET", "/")[0] == 200 for _ in range(10)), START_TIMEOUT_S)
    time.sleep(FAIL_TIMEOUT_S)


@real
def test_an_upload_that_nginx_has_no_room_for_is_refused_and_told_of_nowhere(site: Deployment) -> None:
    visitor = Browser(site.ports["https"])
    waiting = site.folder / "run" / "client_body"
    waiting.rename(waiting.with_name("elsewhere"))
    try:
        status, headers, body = visitor.ask("POST", "/?secret=query", b"x" * 1_000_000)
        assert status == 503
        assert_in_the_site_s_words(headers, body, "Not right now", retry_after="5")
    finally:
        waiting.with_name("elsewhere").rename(waiting)
    assert visitor.ask("POST", "/", b"x" * 1_000_000)[0] == 403, "an instance answers again"
    log = site.log("nginx")
    assert '"method":"POST","path":"/","status":503' in log
    assert "secret" not in log
    assert "127.0.0.1, server" not in log


@real
def test_an_instance_s_own_error_is_not_replaced(site: Deployment) -> None:
    status, headers, body = Browser(site.ports["https"]).ask("GET", "/nothing/")
    assert (status, headers["Retry-After"]) == (404, None)
    assert headers["X-Request-ID"]
    assert b"message-page" in body
