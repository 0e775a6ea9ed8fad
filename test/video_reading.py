"""Reads videos without the code that is tested."""

import cv2


def read_video(path):
    """Rate in Hz, and all pictures, RGB."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return capture.get(cv2.CAP_PROP_FPS), frames
