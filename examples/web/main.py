"""Send requests to the application in `app.py`, without a server; `uvicorn app:app` serves it.

Run it with `python main.py`.
"""

import asyncio

import httpx
from app import app, lifespan


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        answers = await asyncio.gather(*[client.get(path) for path in ("/sqrt/16", "/sqrt/-1", "/crash", "/sqrt/2")])
        for answer in answers:
            print(answer.status_code, answer.json())


if __name__ == "__main__":
    asyncio.run(main())
