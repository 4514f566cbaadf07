"""The proxy that a lab's image `chocon` holds: a container runs this file alone, with the host's own Python.

It stands for chocon as far as its clients see it: a request whose Host is ``example.jp.ccnproxy-https`` is one for
``https://example.jp``. Here nothing goes on to there: the answer names the proxy's version, its host and the upstream.

Imports nothing but the standard library, and is started with ``python -I -S``.
"""

import asyncio
import json
import os
import signal

SUFFIX = ".ccnproxy-https"
STATS = "/.api/http-stats"
LONGEST_SECONDS = 5


class Proxy:
    def __init__(self, version: str, host: str) -> None:
        """``host``: the name of the host that it runs on."""
        self._version = version
        self._host = host
        self._requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its request to its end."""
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                status, body = self.answer((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # a client that went away, or never said what it wanted
        finally:
            writer.close()

    def answer(self, head: str) -> tuple[str, bytes]:
        """Status line and body for the head of a request."""
        request, *lines = head.split("\r\n")
        path = request.split(" ")[1]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        name = headers.get("host", "").partition(":")[0]
        if path == STATS:
            return "200 OK", json.dumps({"version": self._version, "requests": self._requests}).encode()
        if not name.endswith(SUFFIX):
            return "400 Bad Request", f"{name or 'nothing'} is no name below {SUFFIX}\n".encode()
        self._requests += 1
        upstream = f"https://{name.removesuffix(SUFFIX)}{path}"
        return "200 OK", f"chocon {self._version} on {self._host} for {upstream}\n".encode()


async def main() -> None:
    """Load, listen, and at SIGTERM finish what was begun."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    proxy = Proxy(os.environ["VERSION"], os.environ["ON_HOST"])
    try:
        async with asyncio.timeout(float(os.environ["LOAD_SECONDS"])):
            await stopping.wait()
    except TimeoutError:
        server = await asyncio.start_server(proxy.serve, os.environ["ADDR"], 80, backlog=1024)
        await stopping.wait()
        server.close()
        begun = asyncio.all_tasks() - {asyncio.current_task()}
        if begun:
            await asyncio.wait(begun, timeout=LONGEST_SECONDS)


if __name__ == "__main__":
    asyncio.run(main())
