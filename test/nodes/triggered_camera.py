"""A camera in a process of its own whose images are stamped by a clock that all such cameras share.

    python triggered_camera.py NAME HERTZ

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


def main(name, period_ns):
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"camera_{name}")
    publisher = node.create_publisher(Image, f"{name}/image_rect", qos.image_qos("sensor_data"))
    message = array_to_image(read_image(motorcycle_pair()[0])[::2, ::2].copy(), Header(frame_id=name))
    while True:
        stamp = (time.time_ns() // period_ns + 1) * period_ns
        time.sleep((stamp - time.time_ns()) * 1e-9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        publisher.publish(message)


main(sys.argv[1], round(1e9 / float(sys.argv[2])))
