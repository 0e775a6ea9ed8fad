"""Steps of bench/gpu.py, most valuable first. Each module has `checks(job)`: names, and what to call."""

# Seconds of each step, of 25 minutes.
STEPS = {
    "facts": 60,
    "placement": 120,
    "results": 300,
    "cuda_graph": 180,
    "times": 300,
    "originals": 90,
    "laws": 120,
    "cameras": 90,
    "kernels": 90,
    "attention": 90,
    "failures": 60,
}
