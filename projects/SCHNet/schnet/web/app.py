"""The web page as an application: Gradio's blocks, and headers that keep it to its own host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schnet.photo_parser import PhotoParser
from schnet.web.assets import PAGE_STYLE, VIEWER, VIEWER_SCRIPT, VIEWER_STYLE
from schnet.web.content import PhotoPage, message

TITLE = "SCHNet"
MAX_UPLOAD = "200mb"
LOOPBACK = ("127.0.0.1", "localhost")
# Seconds between two looks for old files, and the age in seconds from which they go.
_CLEANING = (600, 3600)

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""Content-Security-Policy: the browser asks no other host for anything, whatever a page says."""


class OwnHostOnly:
    """ASGI middleware that sends `POLICY` with every answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_policy(answer: Message) -> None:
            if answer["type"] == "http.response.start":
                answer["headers"] = [
                    *answer.get("headers", []),
                    (b"content-security-policy", POLICY.encode("ascii")),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(answer)

        await self._app(scope, receive, with_policy)


def build_blocks(page: PhotoPage) -> gr.Blocks:
    """Lay the page out."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=_CLEANING) as blocks:
        gr.HTML(
            "<h1>The parts of a person</h1>"
            "<p>Drop a photo. It is parsed by the computer that serves this page, and goes nowhere "
            "else.</p>",
            elem_classes="schnet-title",
        )
        photo = gr.File(
            label="Photo", file_types=["image"], type="filepath", height=150, elem_id="photo"
        )
        told = gr.HTML(elem_id="message", visible=False)
        viewer = gr.HTML(
            value={},
            html_template=VIEWER,
            css_template=VIEWER_STYLE,
            js_on_load=VIEWER_SCRIPT,
            apply_default_css=False,
            elem_id="viewer",
        )
        with gr.Row(visible=False) as downloads:
            labels = gr.DownloadButton("Download label map (PNG)", elem_id="labels")
            overlay = gr.DownloadButton("Download overlay (PNG)", elem_id="overlay")

        def parse(path: str) -> tuple[Any, ...]:
            content, words, label_file, overlay_file = page.parse(path)
            return (
                content,
                gr.HTML(message(words), visible=bool(words)),
                label_file,
                overlay_file,
                gr.Row(visible=label_file is not None),
                None,  # so that the next photo can be dropped where this one was
            )

        photo.upload(
            parse,
            inputs=photo,
            outputs=[viewer, told, labels, overlay, downloads, photo],
            api_visibility="private",
            show_progress_on=[photo],
        )
    return blocks.queue(default_concurrency_limit=1, max_size=32)


def build_app(parser: PhotoParser, folder: Path, host: str, port: int) -> FastAPI:
    """Make the application.

    Args:
        parser: the model.
        folder: for results; the caller removes it.
        host: that it is served on. On the loopback addresses, requests by other names are refused:
            a page elsewhere may not reach it by a name of its own.
        port: that it is served on.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        build_blocks(PhotoPage(parser, folder)),
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        allowed_paths=[str(folder)],
        show_error=False,
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Base(
            primary_hue="blue",
            neutral_hue="stone",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css=PAGE_STYLE,
    )
    app.add_middleware(OwnHostOnly)
    if host in LOOPBACK:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    return app
