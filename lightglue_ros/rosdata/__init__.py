"""ROS data without rclpy: parameters, messages, decoding, bags."""
