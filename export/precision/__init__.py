"""Precisions of the exported graphs: fp16 and int8."""
