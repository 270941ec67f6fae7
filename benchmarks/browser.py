"""A browser without a screen, for benchmarks and fault runs: keeps its cookies and sends the form's token."""

import http.client
import json
import socket
from dataclasses import dataclass
from email.message import Message

BOUNDARY = "a-boundary-of-the-benchmarks"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> dict[str, object]:
        return dict(json.loads(self.body))


class Browser:
    """One visitor of the site on a local port; every request has a connection of its own."""

    def __init__(self, port: int, *, timeout_s: float = 60.0) -> None:
        self.port = port
        self.timeout_s = timeout_s
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Returns the answer.

        Raises:
            OSError, http.client.HTTPException: There was none.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout_s)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for cookie in response.headers.get_all("Set-Cookie") or []:
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def open_page(self) -> Answer:
        return self.ask("GET", "/")

    def upload(self, picture: bytes, **headers: str) -> Answer:
        body = self.upload_body(picture)
        return self.ask("POST", "/", body, **{"Content-Type": self.content_type, **headers})

    def delete(self, address: str) -> Answer:
        form = f"csrfmiddlewaretoken={self.cookies['csrftoken']}".encode()
        return self.ask("POST", f"{address}delete/", form, **{"Content-Type": "application/x-www-form-urlencoded"})

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={BOUNDARY}"

    def upload_body(self, picture: bytes) -> bytes:
        token = self.cookies.get("csrftoken", "")
        return b"".join(
            [
                f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n{token}'.encode(),
                f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n'.encode(),
                b"Content-Type: image/jpeg\r\n\r\n",
                picture,
                f"\r\n--{BOUNDARY}--\r\n".encode(),
            ]
        )

    def begin_upload(self, picture: bytes, *, sent_share: float) -> socket.socket:
        """Returns the connection of an upload of which only that share was sent."""
        body = self.upload_body(picture)
        head = [
            "POST / HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(body)}",
            "Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
        ]
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout_s)
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body[: int(len(body) * sent_share)])
        return connection
