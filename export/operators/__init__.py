"""Operators that PyTorch lacks, or that its tracer turns into slow or unsupported ONNX operators.

Each file holds one family. An operator has a PyTorch function, a fake that gives the tracer the shape of its
result, a standard ONNX form and, where ONNX Runtime has a faster operator of its own, a fused ONNX form.
"""
