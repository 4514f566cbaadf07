"""A bug in the daemon ends it, for systemd to start it anew; it is not logged and lived with."""

import asyncio
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.daemon import daemon
from agent.definitions import Settings


def test_what_a_callback_raises_ends_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Met on the event loop, where asyncio itself would go on."""
    for name in ("services.d", "state"):
        (tmp_path / name).mkdir()
    environ = {"CONSUL_HTTP_ADDR": "127.0.0.1:1", "SVCAGENT_STATUS_FILE": str(tmp_path / "s")}
    settings = Settings.load(None, environ, services_dir=tmp_path / "services.d", state_dir=tmp_path / "state")

    def broken(*_given: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(daemon, "plans_of", broken)

    async def main() -> None:
        async with asyncio.timeout(20):
            await daemon.Daemon(settings, SystemClock(), environ, []).run()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
