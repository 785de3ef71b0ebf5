"""A web application whose endpoints run in workers: slow work does not block its loop, a crash is one bad answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import venvoy as vv


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the workers with the application, and end them with it."""
    async with vv.AsyncPool(workers=2, worker=vv.WorkerOptions(grace_period=0.5)) as pool:
        app.state.pool = pool.options(timeout=5, returns="plain")
        yield


async def sqrt(request: Request) -> JSONResponse:
    """Answer with the root of a number; what the function raises is the client's mistake."""
    try:
        number = float(request.path_params["number"])
        return JSONResponse({"sqrt": await request.app.state.pool.call("math:sqrt", number)})
    except ValueError as error:
        return JSONResponse({"error": str(error)}, status_code=400)


async def crash(request: Request) -> JSONResponse:
    """Crash a worker, and say so; the others and the application serve on."""
    try:
        return JSONResponse(await request.app.state.pool.call("os:abort"))
    except vv.WorkerCrashed as error:
        return JSONResponse({"error": error.code, "signal": error.signal and error.signal.name}, status_code=500)
    except vv.CallTimeout as error:
        return JSONResponse({"error": error.code}, status_code=504)


app = Starlette(routes=[Route("/sqrt/{number}", sqrt), Route("/crash", crash)], lifespan=lifespan)
