"""Enough of the Hugging Face hub's protocol for the real client, on a loopback port."""

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

LARGE = 100_000
"""Files of so many bytes are redirected to another host, as the hub does with LFS files."""


@dataclass
class Repository:
    """Revisions of a model, each a folder's files."""

    revisions: dict[str, dict[str, bytes]]
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit means."""
        for name in self.revisions:
            commit = hashlib.sha1(name.encode()).hexdigest()
            if revision in (name, commit):
                return commit
        return None

    def files(self, commit: str) -> dict[str, bytes]:
        return next(files for name, files in self.revisions.items() if self.commit(name) == commit)


@dataclass
class Request:
    """What a client asked."""

    method: str
    path: str
    host: str
    authorization: str | None


@dataclass
class HubServer:
    """A hub; `with` starts and stops it."""

    repositories: dict[str, Repository]
    token: str = "hf_secret"
    broken: bool = False
    """Answer everything with 500."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From here on, connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def endpoint(self) -> str:
        """For `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Keeps the test's output clean."""

    def _answer(self) -> None:
        hub = self.hub
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        host = str(self.headers.get("Host"))
        hub.requests.append(Request(self.command, path, host, authorization))
        if hub.broken:
            self._send(500, b"out of order")
            return
        parts = path.strip("/").split("/")
        match parts:
            case ["cdn", organisation, name, commit, *file]:
                # Whoever knows the address may fetch it, as with a signed one.
                files = hub.repositories[f"{organisation}/{name}"].files(commit)
                self._send(200, files["/".join(file)])
            case ["api", "models", organisation, name, *rest]:
                repository = self._repository(f"{organisation}/{name}")
                if repository is not None:
                    self._api(f"{organisation}/{name}", repository, rest)
            case [organisation, name, "resolve", revision, *file]:
                repository = self._repository(f"{organisation}/{name}")
                if repository is not None:
                    self._resolve(f"{organisation}/{name}", repository, revision, "/".join(file))
            case _:
                self._send(404, b"")

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer that it is not there or not open."""
        repository = self.hub.repositories.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository is None:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and not allowed:
            self._send(401, b"", {"X-Error-Code": "GatedRepo"})
            return None
        return repository

    def _api(self, name: str, repository: Repository, rest: list[str]) -> None:
        commit = repository.commit(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        files = repository.files(commit)
        if rest[:1] == ["tree"]:
            entries = [self._tree_entry(path, content) for path, content in files.items()]
            self._json(entries)
            return
        siblings = [{"rfilename": path} for path in files]
        self._json({"_id": "0", "id": name, "sha": commit, "siblings": siblings})

    @staticmethod
    def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }
        if len(content) >= LARGE:
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
        return entry

    def _resolve(self, name: str, repository: Repository, revision: str, file: str) -> None:
        commit = repository.commit(revision)
        if commit is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        headers = {"X-Repo-Commit": commit}
        content = repository.files(commit).get(file)
        if content is None:
            self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
            return
        if len(content) < LARGE:
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            self._send(200, content, headers)
            return
        headers["X-Linked-Size"] = str(len(content))
        headers["X-Linked-ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        headers["Location"] = f"http://localhost:{self.hub.port}/cdn/{name}/{commit}/{file}"
        self._send(302, b"", headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder's files by their paths inside it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
