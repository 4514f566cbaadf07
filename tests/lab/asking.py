"""Questions to the real servers, for what tests assert: one Consul agent's API, and the version that a host serves."""

from typing import Any

import requests

from tests.lab import image
from tests.lab.ground import LabError


class Consul:
    """Asks one Consul agent, for what a test asserts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self.headers = self._session.headers

    def get(self, path: str, seconds: float = 10) -> Any:
        """The JSON answer; an HTTP error raises."""
        return self._asked("GET", path, None, seconds)

    def put(self, path: str, body: Any = None, seconds: float = 10) -> Any:
        """Send JSON; the JSON answer, or nothing where there is none. An HTTP error raises."""
        return self._asked("PUT", path, body, seconds)

    def delete(self, path: str, seconds: float = 10) -> Any:
        """The JSON answer; an HTTP error raises."""
        return self._asked("DELETE", path, None, seconds)

    def deregister_service(self, service_id: str) -> None:
        """Remove a service, if it is there."""
        self._remove(f"/v1/agent/service/deregister/{service_id}")

    def deregister_check(self, check_id: str) -> None:
        """Remove a check, if it is there."""
        self._remove(f"/v1/agent/check/deregister/{check_id}")

    def passing(self, service: str = image.NAME) -> tuple[str, ...]:
        """The nodes whose instance is passing, sorted: those that DNS answers with."""
        entries = self.get(f"/v1/health/service/{service}?passing&consistent")
        return tuple(sorted(entry["Node"]["Node"] for entry in entries))

    def close(self) -> None:
        self._session.close()

    def _remove(self, path: str) -> None:
        response = self._session.put(self.url + path, timeout=10)
        # What is absent: 200 before Consul 1.9, 404 since.
        if not response.ok and not (response.status_code == 404 and response.text.startswith("Unknown ")):
            raise LabError(f"PUT {path} at {self.url}: {response.status_code} {response.text.strip()}")

    def _asked(self, method: str, path: str, body: Any, seconds: float) -> Any:
        response = self._session.request(method, self.url + path, json=body, timeout=seconds)
        if not response.ok:
            raise LabError(f"{method} {path} at {self.url}: {response.status_code} {response.text.strip()}")
        return response.json() if response.content else None


def version_at(address: str) -> str | None:
    """The version that a host's container serves; nothing where none answers."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(f"http://{address}:{image.PORT}/version", timeout=2)
            return response.text.strip() if response.ok else None
    except requests.RequestException:
        return None
