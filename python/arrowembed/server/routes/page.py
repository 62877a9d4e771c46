"""The built-in page: type texts, see how alike a model finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse
from starlette.staticfiles import StaticFiles

_FOLDER: Final = Path(__file__).parent.parent / "page"

FILES: Final = StaticFiles(directory=_FOLDER)
"""What the page is made of; to be mounted at `/page`."""

PATH: Final = "/"
"""Where it is; what is posted there is for text-embeddings-inference."""

PATHS: Final = (
    PATH,
    *("/page/icon.svg", "/page/page.css"),
    *("/page/page.js", "/page/search.js", "/page/service.js"),
)
"""What a browser asks for to show the page."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Its Content-Security-Policy: nothing from elsewhere, and nothing that is written into it."""

router = APIRouter(tags=["service"])


@router.head(PATH, include_in_schema=False)
@router.get(PATH, summary="A page to try it", response_class=HTMLResponse)
async def page() -> FileResponse:
    """Shows how alike a model finds texts. It asks the service as any other client does."""
    return FileResponse(_FOLDER / "index.html", headers={"cache-control": "no-cache"})
