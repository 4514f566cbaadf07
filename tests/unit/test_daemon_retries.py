"""When the daemon tries a reload again, on an event loop with pauses of moments."""

import asyncio

import pytest

from agent.daemon.reloads import Retries

MOMENT = 0.05
AFTER = 4 * MOMENT


def tried(*events: str) -> list[str]:
    """What was begun again after these came at one moment: ``failed``, ``over`` or ``stop``, each followed by an id."""
    begun: list[str] = []

    async def main() -> None:
        retries = Retries(begun.append, (MOMENT, 1.5 * MOMENT))
        for event in events:
            match event.split():
                case ["failed", service_id]:
                    retries.failed(service_id)
                case ["over", service_id]:
                    retries.reset(service_id)
                case _:
                    retries.stop()
        await asyncio.sleep(AFTER)  # that nothing more comes is seen only by waiting

    asyncio.run(main())
    return begun


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        # A schedule that fails meanwhile adds none: they would be more with every minute of an outage.
        (("failed web", "failed web", "failed web"), ["web"]),
        (("failed web", "failed api"), ["web", "api"]),
        (("failed web", "over web"), []),
        # It takes up what was under way when it is started anew.
        (("failed web", "failed api", "stop"), []),
    ],
)
def test_one_try_a_service_that_has_not_ended_well(events: tuple[str, ...], expected: list[str]) -> None:
    assert tried(*events) == expected


def test_pauses_grow_and_are_forgotten() -> None:
    """Up to the last one; after an end of its own it begins anew."""

    async def main() -> list[float]:
        retries = Retries(lambda _service_id: None, (1.0, 2.0))
        pauses = [retries.failed("web") for _ in range(3)]
        retries.reset("web")
        return [*pauses, retries.failed("web")]

    assert asyncio.run(main()) == [1.0, 2.0, 2.0, 1.0]


def test_a_pause_is_never_shorter_than_a_server_asked_for() -> None:
    """Whatever the jitter; and a longer pause of the retries stays."""

    async def main() -> list[float]:
        retries = Retries(lambda _service_id: None, (1.0, 200.0), jitter=lambda: 0.8)
        pauses = [retries.failed("web", 90.0), retries.failed("web", 90.0)]
        retries.stop()
        return pauses

    first, second = asyncio.run(main())
    assert first >= 90.0
    assert second == 160.0
