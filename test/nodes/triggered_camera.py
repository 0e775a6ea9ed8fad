"""Cameras in a process of their own whose images are stamped by a clock that all such processes share.

    python triggered_camera.py HERTZ NAME...

Stamps are whole multiples of the period, as of cameras with a common trigger.
"""

import sys
import time

import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.core.image_files import read_image
from lightglue_ros.export.weights import motorcycle_pair
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.conversions import array_to_image


def main(period_ns, names):
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"camera_{names[0]}")
    profile = qos.image_qos("sensor_data")
    publishers = [node.create_publisher(Image, f"{name}/image_rect", profile) for name in names]
    message = array_to_image(read_image(motorcycle_pair()[0])[::2, ::2].copy(), Header(frame_id=names[0]))
    while True:
        stamp = (time.time_ns() // period_ns + 1) * period_ns
        time.sleep((stamp - time.time_ns()) * 1e-9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        for publisher in publishers:
            publisher.publish(message)


main(round(1e9 / float(sys.argv[1])), sys.argv[2:])
