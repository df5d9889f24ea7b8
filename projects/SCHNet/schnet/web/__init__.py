"""The local web page; Gradio, which is an extra, is imported by `schnet.web.app` alone."""
