"""ROS 2 nodes: parameters, messages, lifecycle and diagnostics around the core."""
