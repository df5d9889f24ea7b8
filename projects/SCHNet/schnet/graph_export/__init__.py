"""The whole model as one graph for other runtimes: ONNX, TorchScript, torch.export.

`metadata` and `fitting` import no torch: what runs an exported file reads them alone.
"""
