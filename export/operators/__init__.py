"""Operators with a PyTorch function and ONNX forms; see `registration`."""
